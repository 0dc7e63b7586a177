# The template, for those whose plan is Terraform's: the same resources, checked by the same tests.

terraform {
  required_version = ">= 1.7"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

locals {
  given = {
    Name         = var.name
    VpcId        = var.vpc_id
    SubnetIds    = join(",", var.subnet_ids)
    Architecture = var.architecture
    CodeBucket   = var.code_bucket
    CodeKey      = aws_s3_object.code.key
  }
}

# Its digest is its name: another zip is another key, which is how CloudFormation sees that it changed.
resource "aws_s3_object" "code" {
  bucket = var.code_bucket
  key    = "ledger-db/${filesha256(var.zip)}.zip"
  source = var.zip

  # The old zip goes last: until the stack has changed, and if it is rolled back, the functions are made of it.
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_cloudformation_stack" "this" {
  name          = var.name
  template_body = file("${path.module}/../template.yaml")
  capabilities  = ["CAPABILITY_IAM"]
  parameters    = merge(var.parameters, local.given)
  tags          = var.tags

  timeouts {
    create = "60m"
    update = "60m"
  }
}
