output "environment" {
  description = "For a service; AWS itself is configured the AWS way."
  value = {
    for setting, output in {
      LEDGER_DB_DATABASE_SECRET_ID = "DatabaseSecretId"
      LEDGER_DB_REDIS_SECRET_ID    = "RedisSecretId"
      LEDGER_DB_REDIS_TLS          = "RedisTls"
    } : setting => aws_cloudformation_stack.this.outputs[output]
    if contains(keys(aws_cloudformation_stack.this.outputs), output)
  }
}

output "service_policy_arn" {
  description = "To attach to the role of a service."
  value       = aws_cloudformation_stack.this.outputs["ServicePolicyArn"]
}

output "service_security_group_id" {
  description = "Lets a service reach both servers and AWS."
  value       = aws_cloudformation_stack.this.outputs["ServiceSecurityGroupId"]
}
