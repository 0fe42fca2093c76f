# Retention and partitions of a stream cannot be changed. A change would replace the stream and delete its records:
# prevent_destroy makes it an error until somebody removes it.

locals {
  partitions = merge(
    { for topic in ["transactions", "decisions", "alerts", "replies", "imports"] : topic => var.partitions[topic] },
    { for topic in ["transactions", "decisions", "alerts"] : "${topic}.dlq" => var.partitions.dead_letters },
  )
  # The maximum of Streaming.
  retention_hours = 168
}

resource "oci_streaming_stream_pool" "this" {
  compartment_id = var.compartment_id
  name           = var.name

  kafka_settings {
    # A misspelt topic must be an error, not a new stream with one day of retention.
    auto_create_topics_enable = false
    log_retention_hours       = local.retention_hours
    num_partitions            = 1
  }

  dynamic "private_endpoint_settings" {
    for_each = var.streaming_subnet_id[*]
    content {
      subnet_id = private_endpoint_settings.value
      nsg_ids   = oci_core_network_security_group.streaming[*].id
    }
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "oci_streaming_stream" "this" {
  for_each = local.partitions

  name               = each.key
  stream_pool_id     = oci_streaming_stream_pool.this.id
  partitions         = each.value
  retention_in_hours = local.retention_hours

  lifecycle {
    prevent_destroy = true
  }
}

data "oci_core_subnet" "streaming" {
  count     = var.streaming_subnet_id == null ? 0 : 1
  subnet_id = var.streaming_subnet_id
}

resource "oci_core_network_security_group" "streaming" {
  count          = var.streaming_subnet_id == null ? 0 : 1
  compartment_id = var.compartment_id
  vcn_id         = data.oci_core_subnet.streaming[0].vcn_id
  display_name   = "${var.name}-streaming"
}

resource "oci_core_network_security_group_security_rule" "streaming" {
  for_each = var.streaming_subnet_id == null ? {} : data.oci_core_subnet.clients

  network_security_group_id = oci_core_network_security_group.streaming[0].id
  description               = "Kafka, from ${each.value.display_name}"
  direction                 = "INGRESS"
  protocol                  = "6" # TCP
  source_type               = "CIDR_BLOCK"
  source                    = each.value.cidr_block

  tcp_options {
    destination_port_range {
      min = 9092
      max = 9092
    }
  }
}
