# What comes out, without a cloud: the providers are mocks. tests/deploy runs this in a copy without prevent_destroy,
# which would keep even a mock from being cleaned up.

mock_provider "oci" {
  mock_resource "oci_streaming_stream_pool" {
    defaults = {
      id             = "ocid1.streampool.oc1..pool"
      kafka_settings = { bootstrap_servers = "cell-1.streaming.eu-frankfurt-1.oci.oraclecloud.com:9092" }
    }
  }
  mock_data "oci_identity_tenancy" {
    defaults = { name = "acme" }
  }
  mock_data "oci_identity_region_subscriptions" {
    defaults = {
      region_subscriptions = [
        { region_name = "us-ashburn-1", region_key = "IAD", is_home_region = true, status = "READY" },
        { region_name = "eu-frankfurt-1", region_key = "FRA", is_home_region = false, status = "READY" },
      ]
    }
  }
  mock_data "oci_objectstorage_namespace" {
    defaults = { namespace = "axacme" }
  }
  mock_data "oci_containerengine_cluster" {
    defaults = { type = "ENHANCED_CLUSTER" }
  }
  mock_data "oci_core_subnet" {
    defaults = { prohibit_public_ip_on_vnic = true, cidr_block = "10.0.1.0/24" }
  }
  mock_resource "oci_ons_notification_topic" {
    defaults = { topic_id = "ocid1.onstopic.oc1..topic" }
  }
  mock_resource "oci_psql_db_system" {
    defaults = { id = "ocid1.postgresqldbsystem.oc1..db" }
  }
  mock_resource "oci_apm_apm_domain" {
    defaults = { id = "ocid1.apmdomain.oc1..apm", data_upload_endpoint = "https://aaaa.apm-agt.eu-frankfurt-1.oci.oraclecloud.com" }
  }
  mock_data "oci_apm_data_keys" {
    defaults = { data_keys = [{ name = "auto_generated_private_datakey", type = "PRIVATE", value = "KEY" }] }
  }
  mock_data "oci_psql_db_system_connection_detail" {
    defaults = {
      ca_certificate      = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n"
      primary_db_endpoint = [{ fqdn = "primary.db.internal", ip_address = "10.0.2.5", port = 5432 }]
    }
  }
}

mock_provider "oci" {
  alias = "home"
  mock_resource "oci_identity_group" {
    defaults = { id = "ocid1.group.oc1..group" }
  }
  mock_resource "oci_identity_customer_secret_key" {
    defaults = { id = "ACCESS", key = "SECRET" }
  }
  mock_resource "oci_identity_auth_token" {
    defaults = { token = "a#b=c>d" }
  }
}

mock_provider "random" {
  mock_resource "random_password" {
    defaults = { result = "pass-word_1" }
  }
}

variables {
  tenancy_id         = "ocid1.tenancy.oc1..t"
  compartment_id     = "ocid1.compartment.oc1..c"
  region             = "eu-frankfurt-1"
  cluster_id         = "ocid1.cluster.oc1.eu-frankfurt-1.k"
  client_subnet_ids  = ["ocid1.subnet.oc1.eu-frankfurt-1.pods"]
  database_subnet_id = "ocid1.subnet.oc1.eu-frankfurt-1.db"
}

run "a_line_a_setting" {
  assert {
    condition     = alltrue([for line in split("\n", trimspace(output.env_file)) : can(regex("^[A-Z][A-Z0-9_]*=", line))])
    error_message = "env_file has a line that is not NAME=value."
  }
  assert {
    condition     = strcontains(output.env_file, "\nOCIR_PASSWORD=a#b=c>d\n") && strcontains(output.env_file, "\nSCORER_KAFKA_AUTH_TOKEN=a#b=c>d\n") && strcontains(output.env_file, "\nSCORER_KAFKA_USER=tollgate-scorer\n")
    error_message = "The auth token is not handed on as it is."
  }
  assert {
    condition     = strcontains(output.env_file, "\nOCIR_REPOSITORY=fra.ocir.io/axacme/tollgate\n") && strcontains(output.env_file, "\nOCIR_USERNAME=axacme/tollgate\n")
    error_message = "Images do not come from the region's registry."
  }
  assert {
    condition     = strcontains(output.env_file, "@primary.db.internal:5432/postgres?sslmode=verify-full&sslrootcert=")
    error_message = "The database is not asked for by name with its certificate verified."
  }
  assert {
    condition     = strcontains(output.env_file, "\nTOLLGATE_NOTIFIER__SINKS=[{\"kind\":\"oci\",\"topic\":\"ocid1.onstopic.oc1..topic\"}]\n") && strcontains(output.env_file, "\nTOLLGATE_INGEST__SOURCES=[{\"bucket\":\"tollgate-imports\"}]\n")
    error_message = "The topic of alerts or the bucket of imports is not handed on."
  }
  assert {
    condition     = strcontains(output.env_file, "=https://aaaa.apm-agt.eu-frankfurt-1.oci.oraclecloud.com/20200101/opentelemetry/private/v1/traces\n")
    error_message = "The URL of traces is wrong."
  }
}

run "the_login_is_tenancy_user_pool" {
  assert {
    condition     = output.sasl_username == "acme/tollgate/ocid1.streampool.oc1..pool"
    error_message = output.sasl_username
  }
}

run "or_with_the_domain_between" {
  variables {
    identity_domain = "Default"
  }
  assert {
    condition     = output.sasl_username == "acme/Default/tollgate/ocid1.streampool.oc1..pool" && strcontains(output.env_file, "\nOCIR_USERNAME=axacme/Default/tollgate\n")
    error_message = output.sasl_username
  }
}

run "every_topic_has_a_stream_with_all_the_retention_there_is" {
  assert {
    condition     = join(" ", sort(keys(oci_streaming_stream.this))) == "alerts alerts.dlq decisions decisions.dlq imports replies transactions transactions.dlq"
    error_message = join(" ", keys(oci_streaming_stream.this))
  }
  assert {
    condition     = alltrue([for stream in oci_streaming_stream.this : stream.retention_in_hours == 168])
    error_message = "A stream has another retention than 168 hours."
  }
}

run "a_service_account_may_do_what_it_needs_and_no_more" {
  assert {
    condition     = length(oci_identity_policy.workload.statements) == 5 && length([for s in oci_identity_policy.workload.statements : s if strcontains(s, "ons-topics")]) == 1
    error_message = join("\n", oci_identity_policy.workload.statements)
  }
  assert {
    condition = alltrue([for s in oci_identity_policy.workload.statements :
      strcontains(s, "request.principal.namespace = 'tollgate'") && strcontains(s, "request.principal.cluster_id = 'ocid1.cluster.") &&
      (strcontains(s, "ons-topics") || strcontains(s, "target.metrics.namespace = 'fraud_detection'"))
    ])
    error_message = join("\n", oci_identity_policy.workload.statements)
  }
}

run "nobody_is_told_of_objects_unless_asked" {
  assert {
    condition     = length(oci_ons_subscription.imports) == 0
    error_message = "There is a subscription without a URL."
  }
}

run "or_the_url_is" {
  variables {
    events_url          = "https://events:tg_1@tollgate.example.com/v1/events"
    streaming_subnet_id = "ocid1.subnet.oc1.eu-frankfurt-1.streams"
    vault               = { vault_id = "ocid1.vault.oc1..v", key_id = "ocid1.key.oc1..k" }
  }
  assert {
    condition     = nonsensitive(oci_ons_subscription.imports[0].endpoint) == "https://events:tg_1@tollgate.example.com/v1/events"
    error_message = "The subscription has another URL."
  }
  assert {
    condition     = length(oci_core_network_security_group_security_rule.streaming) == 1 && length(oci_kms_vault.this) == 0
    error_message = "A private pool has its rules; a vault that is given is not made."
  }
}

run "a_basic_cluster_is_refused" {
  command = plan

  override_data {
    target = data.oci_containerengine_cluster.this
    values = { type = "BASIC_CLUSTER" }
  }
  expect_failures = [data.oci_containerengine_cluster.this]
}

run "a_public_subnet_for_the_database_is_refused" {
  command = plan

  override_data {
    target = data.oci_core_subnet.database
    values = { prohibit_public_ip_on_vnic = false }
  }
  expect_failures = [data.oci_core_subnet.database]
}

run "what_would_be_found_late_is_refused_now" {
  command = plan

  variables {
    tenancy_id         = "acme"
    compartment_id     = "tollgate"
    region             = "FRA"
    cluster_id         = "oke"
    client_subnet_ids  = []
    database_subnet_id = "10.0.2.0/24"
    name               = "Toll gate"
    partitions         = { transactions = 1.5 }
    events_url         = "http://tollgate.example.com/v1/events"
    vault              = { vault_id = "v", key_id = "k" }
    postgres           = { admin = "postgres" }
    identity_domain    = "a/b"
  }
  expect_failures = [
    var.tenancy_id, var.compartment_id, var.region, var.cluster_id, var.client_subnet_ids, var.database_subnet_id,
    var.name, var.partitions, var.events_url, var.vault, var.postgres, var.identity_domain,
  ]
}

run "a_new_key_of_the_log_signs_and_the_old_one_is_still_accepted" {
  variables {
    log_key_ids = ["2", "1"]
  }
  assert {
    condition     = strcontains(output.env_file, "\nTOLLGATE_KAFKA__AUTHENTICATION__KEYS=[{\"id\":\"2\",\"secret\":\"pass-word_1\"},{\"id\":\"1\",\"secret\":\"pass-word_1\"}]\n")
    error_message = "The keys of the log are not handed on."
  }
}

run "a_service_reads_and_writes_its_own_streams_and_no_other" {
  assert {
    condition     = length(oci_identity_policy.streaming["notifier"].statements) == 3 && strcontains(oci_identity_policy.streaming["notifier"].statements[1], "to use stream-pull in compartment id ocid1.compartment.oc1..c where any {target.stream.id = '${oci_streaming_stream.this["alerts"].id}'}")
    error_message = join("\n", oci_identity_policy.streaming["notifier"].statements)
  }
  assert {
    condition     = alltrue([for s in oci_identity_policy.streaming["lag"].statements : !strcontains(s, "stream-push")])
    error_message = join("\n", oci_identity_policy.streaming["lag"].statements)
  }
  assert {
    condition     = alltrue(flatten([for policy in oci_identity_policy.streaming : [for s in policy.statements : strcontains(s, "to read streams") || strcontains(s, "where any {target.stream.id = '")]]))
    error_message = "A service may use every stream."
  }
}
