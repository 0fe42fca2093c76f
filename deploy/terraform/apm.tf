resource "oci_apm_apm_domain" "this" {
  compartment_id = var.compartment_id
  display_name   = var.name
  description    = "Traces and metrics of Tollgate"
  is_free_tier   = var.apm_free_tier
}

data "oci_apm_data_keys" "private" {
  apm_domain_id = oci_apm_apm_domain.this.id
  data_key_type = "PRIVATE"
}

locals {
  # The attribute has been observed both with and without a scheme.
  apm_endpoint = "https://${trimsuffix(trimprefix(oci_apm_apm_domain.this.data_upload_endpoint, "https://"), "/")}"
  apm_data_key = data.oci_apm_data_keys.private.data_keys[0].value
}
