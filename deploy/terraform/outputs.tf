locals {
  auth_token = oci_identity_auth_token.this.token
  brokers    = oci_streaming_stream_pool.this.kafka_settings[0].bootstrap_servers
  registry   = "${local.region_key}.ocir.io"
  # compact() omits the domain if there is none.
  sasl_username     = join("/", compact([local.tenancy_name, var.identity_domain, oci_identity_user.this.name, oci_streaming_stream_pool.this.id]))
  registry_username = join("/", compact([local.bucket_namespace, var.identity_domain, oci_identity_user.this.name]))
  s3_endpoint       = "https://${local.bucket_namespace}.compat.objectstorage.${var.region}.oraclecloud.com"

  # Tollgate's settings under their own names, and the values that deploy/oci-deploy.sh itself needs.
  env = {
    OCI_REGION         = var.region
    OKE_CLUSTER_ID     = var.cluster_id
    OCIR_REPOSITORY    = "${local.registry}/${local.bucket_namespace}/${var.name}"
    OCIR_USERNAME      = local.registry_username
    OCIR_PASSWORD      = local.auth_token
    POSTGRES_CA_BASE64 = base64encode(local.postgres_ca)

    TOLLGATE_KAFKA__PROFILE          = "oci-streaming"
    TOLLGATE_KAFKA__BROKERS          = local.brokers
    TOLLGATE_KAFKA__PARTITIONS       = tostring(var.partitions.transactions)
    TOLLGATE_KAFKA__RETENTION_HOURS  = tostring(local.retention_hours)
    TOLLGATE_KAFKA__OCI__TENANCY     = local.tenancy_name
    TOLLGATE_KAFKA__OCI__DOMAIN      = var.identity_domain == null ? "" : var.identity_domain
    TOLLGATE_KAFKA__OCI__STREAM_POOL = oci_streaming_stream_pool.this.id

    # Each service gets its own as TOLLGATE_KAFKA__OCI__USER and TOLLGATE_KAFKA__OCI__AUTH_TOKEN; LAG is KEDA's.
    INGEST_KAFKA_USER            = oci_identity_user.service["ingest"].name
    INGEST_KAFKA_AUTH_TOKEN      = oci_identity_auth_token.service["ingest"].token
    SCORER_KAFKA_USER            = oci_identity_user.service["scorer"].name
    SCORER_KAFKA_AUTH_TOKEN      = oci_identity_auth_token.service["scorer"].token
    PERSISTENCE_KAFKA_USER       = oci_identity_user.service["persistence"].name
    PERSISTENCE_KAFKA_AUTH_TOKEN = oci_identity_auth_token.service["persistence"].token
    NOTIFIER_KAFKA_USER          = oci_identity_user.service["notifier"].name
    NOTIFIER_KAFKA_AUTH_TOKEN    = oci_identity_auth_token.service["notifier"].token
    LAG_KAFKA_USER               = oci_identity_user.service["lag"].name
    LAG_KAFKA_AUTH_TOKEN         = oci_identity_auth_token.service["lag"].token

    TOLLGATE_KAFKA__AUTHENTICATION__KEYS = local.log_keys

    TOLLGATE_OCI__AUTH                    = "workload-identity"
    TOLLGATE_OCI__REGION                  = var.region
    TOLLGATE_OCI__MONITORING__COMPARTMENT = var.compartment_id

    TOLLGATE_PERSISTENCE__DATABASE_URL  = local.postgres_url
    TOLLGATE_NOTIFIER__DELIVERY_LOG_URL = local.postgres_url
    TOLLGATE_NOTIFIER__SINKS            = jsonencode([{ kind = "oci", topic = oci_ons_notification_topic.alerts.topic_id }])
    TOLLGATE_INGEST__SOURCES            = jsonencode([{ bucket = oci_objectstorage_bucket.imports.name }])
    TOLLGATE_SCORER__SNAPSHOTS          = "s3://${oci_objectstorage_bucket.snapshots.name}/scorer"

    AWS_ENDPOINT          = local.s3_endpoint
    AWS_REGION            = var.region
    AWS_ACCESS_KEY_ID     = oci_identity_customer_secret_key.this.id
    AWS_SECRET_ACCESS_KEY = oci_identity_customer_secret_key.this.key

    # APM's path for metrics is beside, not below, its path for traces, so each has its own URL.
    OTEL_EXPORTER_OTLP_PROTOCOL         = "http/protobuf"
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT  = "${local.apm_endpoint}/20200101/opentelemetry/private/v1/traces"
    OTEL_EXPORTER_OTLP_METRICS_ENDPOINT = "${local.apm_endpoint}/20200101/opentelemetry/v1/metrics"
    OTEL_EXPORTER_OTLP_HEADERS          = "Authorization=dataKey%20${local.apm_data_key}"
  }
}

output "env_file" {
  description = "Everything for deploy/oci-deploy.sh --terraform-outputs: NAME=value lines, with secrets."
  value       = "${join("\n", [for name, value in local.env : "${name}=${value}"])}\n"
  sensitive   = true

  precondition {
    condition     = alltrue([for value in values(local.env) : !strcontains(value, "\n")])
    error_message = "A value has more than one line, which NAME=value cannot hold."
  }
}

output "bootstrap_servers" {
  description = "The stream pool's Kafka listener."
  value       = local.brokers
}

output "stream_pool_id" {
  description = "OCID of the stream pool."
  value       = oci_streaming_stream_pool.this.id
}

output "sasl_username" {
  description = "An operator's user name for SASL/PLAIN, for tollgate dlq and tollgate imports: tenancy/[domain/]user/stream pool."
  value       = local.sasl_username
}

output "lag_sasl_username" {
  description = "KEDA's user name for SASL/PLAIN."
  value       = join("/", compact([local.tenancy_name, var.identity_domain, oci_identity_user.service["lag"].name, oci_streaming_stream_pool.this.id]))
}

output "auth_token" {
  description = "The operator's password for SASL/PLAIN, and for pulling images."
  value       = local.auth_token
  sensitive   = true
}

output "alerts_topic_id" {
  description = "OCID of the Notifications topic of alerts. Subscribe people to it."
  value       = oci_ons_notification_topic.alerts.topic_id
}

output "notifications_endpoint" {
  description = "Endpoint for publishing to that topic."
  value       = oci_ons_notification_topic.alerts.api_endpoint
}

output "imports_topic_id" {
  description = "OCID of the Notifications topic for new objects."
  value       = oci_ons_notification_topic.imports.topic_id
}

output "apm_data_upload_endpoint" {
  description = "APM's endpoint for traces and metrics."
  value       = local.apm_endpoint
}

output "apm_data_key" {
  description = "Private data key of APM: Authorization: dataKey KEY."
  value       = local.apm_data_key
  sensitive   = true
}

output "postgres_host" {
  description = "Name of the database's primary endpoint. Its certificate contains this name, not an address."
  value       = local.postgres_endpoint.fqdn
}

output "postgres_port" {
  description = "Port of the database's primary endpoint."
  value       = local.postgres_endpoint.port
}

output "postgres_ca_certificate" {
  description = "Certificate of the private CA that signs the database's, PEM."
  value       = local.postgres_ca
}

output "bucket_namespace" {
  description = "Object Storage namespace of the tenancy."
  value       = local.bucket_namespace
}

output "imports_bucket" {
  description = "Bucket of objects to import."
  value       = oci_objectstorage_bucket.imports.name
}

output "snapshots_bucket" {
  description = "Bucket of the scorer's snapshots."
  value       = oci_objectstorage_bucket.snapshots.name
}

output "s3_endpoint" {
  description = "S3-compatible endpoint of both buckets, path style."
  value       = local.s3_endpoint
}

output "s3_access_key_id" {
  description = "Access key of the Customer Secret Key; the secret is in the vault."
  value       = oci_identity_customer_secret_key.this.id
}

output "image_repository" {
  description = "The part of the image names before /SERVICE:TAG."
  value       = local.env.OCIR_REPOSITORY
}

output "vault_secret_ids" {
  description = "OCIDs of the secrets in the vault, for External Secrets and similar operators."
  value       = { for name, secret in oci_vault_secret.this : name => secret.id }
}
