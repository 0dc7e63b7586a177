mock_provider "aws" {
  mock_resource "aws_cloudformation_stack" {
    defaults = {
      outputs = {
        DatabaseSecretId       = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:ledger-db/postgres-AbC123"
        ServicePolicyArn       = "arn:aws:iam::123456789012:policy/service"
        ServiceSecurityGroupId = "sg-0123456789abcdef0"
      }
    }
  }
}

variables {
  # Any file: what counts is that its digest becomes its name.
  zip         = "main.tf"
  code_bucket = "code-of-somebody"
  vpc_id      = "vpc-0123456789abcdef0"
  subnet_ids  = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
}

run "the_template_gets_what_was_given" {
  variables {
    parameters = { Rotation = "enabled", Redis = "none", Name = "not-this" }
  }

  assert {
    condition     = aws_cloudformation_stack.this.parameters["SubnetIds"] == "subnet-0123456789abcdef0,subnet-0123456789abcdef1"
    error_message = "The subnets are not handed on as CloudFormation wants lists."
  }
  assert {
    condition     = aws_cloudformation_stack.this.parameters["Rotation"] == "enabled"
    error_message = "Other parameters are not handed on."
  }
  assert {
    condition     = aws_cloudformation_stack.this.parameters["Name"] == "ledger-db"
    error_message = "A parameter that has a variable of its own is overridden by the map."
  }
  assert {
    condition     = aws_cloudformation_stack.this.parameters["CodeKey"] == "ledger-db/${filesha256("main.tf")}.zip"
    error_message = "The key does not say what is in the zip."
  }
}

run "a_service_gets_its_environment" {
  assert {
    condition = output.environment == {
      LEDGER_DB_DATABASE_SECRET_ID = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:ledger-db/postgres-AbC123"
    }
    error_message = "The environment is not that of a service without Redis."
  }
}

run "one_subnet_is_refused" {
  command = plan

  variables {
    subnet_ids = ["subnet-0123456789abcdef0"]
  }

  expect_failures = [var.subnet_ids]
}
