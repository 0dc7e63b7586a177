-- The owner that cannot log in, and the pair of roles that log in as it.  The second has no password until the
-- first rotation gives it one.
CREATE ROLE ledger_owner NOLOGIN;
CREATE ROLE ledger_app_a LOGIN PASSWORD 'development' IN ROLE ledger_owner;
CREATE ROLE ledger_app_b LOGIN IN ROLE ledger_owner;
ALTER ROLE ledger_app_a SET ROLE ledger_owner;
ALTER ROLE ledger_app_b SET ROLE ledger_owner;
ALTER DATABASE ledger OWNER TO ledger_owner;
