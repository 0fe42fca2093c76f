terraform {
  required_version = ">= 1.5"

  required_providers {
    oci = {
      source  = "oracle/oci"
      version = "~> 8.28"
    }
    random = {
      source  = "hashicorp/random"
      version = "~> 3.6"
    }
  }
}

provider "oci" {
  region = var.region
}

# Users, groups and policies can be changed in the tenancy's home region only.
provider "oci" {
  alias  = "home"
  region = local.home_region
}

data "oci_identity_tenancy" "this" {
  tenancy_id = var.tenancy_id
}

data "oci_identity_region_subscriptions" "this" {
  tenancy_id = var.tenancy_id

  lifecycle {
    postcondition {
      condition     = contains(self.region_subscriptions[*].region_name, var.region)
      error_message = "region: the tenancy is not subscribed to ${var.region}."
    }
  }
}

data "oci_objectstorage_namespace" "this" {
  compartment_id = var.tenancy_id
}

data "oci_containerengine_cluster" "this" {
  cluster_id = var.cluster_id

  lifecycle {
    postcondition {
      condition     = self.type == "ENHANCED_CLUSTER"
      error_message = "cluster_id: workload identity needs an enhanced cluster; this one is ${self.type}."
    }
  }
}

data "oci_core_subnet" "clients" {
  for_each  = var.client_subnet_ids
  subnet_id = each.key
}

locals {
  regions     = data.oci_identity_region_subscriptions.this.region_subscriptions
  home_region = one([for region in local.regions : region.region_name if region.is_home_region])
  region_key  = lower(one([for region in local.regions : region.region_key if region.region_name == var.region]))

  tenancy_name     = data.oci_identity_tenancy.this.name
  bucket_namespace = data.oci_objectstorage_namespace.this.namespace
}
