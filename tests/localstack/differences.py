"""
In what does LocalStack's Secrets Manager differ from AWS's?

Test of the conformance suite to reason; a name without brackets stands for every case of the test.  They are
expected to fail, strictly: a release of LocalStack that mends one turns the run red, and the line goes.
"""

from collections.abc import Mapping
from typing import Final

_DELETED: Final = "works on a secret that is deleted"
_NO_VALIDATION: Final = "does not know ValidateResourcePolicy"

DIFFERENCES: Final[Mapping[str, str]] = {
    "test_a_deleted_secret_cannot_be_changed[get_resource_policy-more6]": _DELETED,
    "test_a_deleted_secret_cannot_be_changed[put_secret_value-more4]": _DELETED,
    "test_a_deleted_secret_cannot_be_changed[tag_resource-more5]": _DELETED,
    "test_a_filter_that_finds_a_secret_without_value_reads_the_rest": "BatchGetSecretValue fails as a whole",
    "test_a_list_can_be_sorted_by_name": "SortBy is ignored",
    "test_a_name_has_at_most_512_characters": "accepts a name of any length",
    "test_a_pending_version_cannot_be_modified_either": "the same token with another value overwrites",
    "test_a_policy_can_be_validated": _NO_VALIDATION,
    "test_a_policy_must_be_json": "accepts a policy that is no JSON",
    "test_a_public_policy_can_be_blocked": "accepts a public policy although it should be blocked",
    "test_a_put_carries_at_most_twenty_labels": "accepts any number of labels",
    "test_a_random_password_has_at_most_4096_characters": "another error code",
    "test_a_value_has_at_most_64_kibibytes": "accepts values of any size",
    "test_a_value_is_text_or_bytes": "keeps both",
    "test_an_invented_page_token_is_refused": "fails with InternalError",
    "test_creating_the_same_secret_twice_with_one_token_is_once": "refuses a repeated CreateSecret",
    "test_creating_with_a_used_token_and_another_value_is_refused": "names the secret, not the token",
    "test_current_cannot_be_removed": "leaves the secret without a current version",
    "test_moving_a_label_to_where_it_is_changes_nothing": "wants RemoveFromVersionId where nothing moves",
    "test_moving_any_label_must_name_where_it_is": "asks for RemoveFromVersionId with AWSCURRENT only",
    "test_only_labelled_versions_are_listed": "lists deprecated versions always",
    "test_something_must_be_left_to_choose_from": "fails with InternalError",
    "test_versions_come_in_pages": "answers everything in one page",
}
