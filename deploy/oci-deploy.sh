#!/usr/bin/env bash
# Deploys a checkout of Tollgate to OKE: images, secrets, manifests, jobs, rollouts, and a smoke test with one transaction.
#
# usage: deploy/oci-deploy.sh [OPTION…]
#   --terraform-outputs FILE  settings, one NAME=value per line: terraform output -raw env_file >FILE
#   --tag TAG                 of the images (default: the commit that is checked out)
#   --platform PLATFORM       of the cluster's nodes (default: linux/amd64)
#   --skip-images             the images of this tag are in the registry already
#   --endpoint NAME           of the cluster: PUBLIC_ENDPOINT (default), PRIVATE_ENDPOINT or VCN_HOSTNAME
#   --context NAME            use this context of your kubeconfig instead of requesting one from OKE
#   --timeout SECONDS         for the jobs, for each rollout and for the smoke test (default: 600)
#   --dry-run                 print the plan and what is missing for it, without any call or change
# Exported variables (OCI_REGION, OKE_CLUSTER_ID, OCIR_…, TOLLGATE_SECTION__KEY) override the file. Not in the file:
#   TOLLGATE_INGEST__API_KEYS, TOLLGATE_PERSISTENCE__API_KEYS   lists of what `tollgate key` prints, as JSON
#   SMOKE_API_KEY                                               a key that is in both
# Requires bash, kubectl, docker and the oci command with a login. It can be run again: existing resources are kept or updated.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
umask 077

namespace=tollgate
overlay=k8s/overlays/oke
services=(ingest scorer persistence notifier)
images=("${services[@]}" tollgate) # the last is the command line: topics, dead letters
part_of=app.kubernetes.io/part-of=tollgate

say() { printf 'oci-deploy: %s\n' "$*"; }
die() { say "FAILED: $*" >&2; exit 1; }
usage() { say "$*; --help says more" >&2; exit 2; }

file='' tag='' platform=linux/amd64 endpoint=PUBLIC_ENDPOINT context='' timeout=600 images_wanted=true dry_run=false
while [ $# -gt 0 ]; do
  case $1 in
    --skip-images) images_wanted=false; shift; continue ;;
    --dry-run) dry_run=true; shift; continue ;;
    -h | --help) sed -n '2,17s/^# \{0,1\}//p' deploy/oci-deploy.sh; exit 0 ;;
  esac
  [ $# -ge 2 ] || usage "$1: no such option, or one that needs a value"
  case $1 in
    --terraform-outputs) file=$2 ;;
    --tag) tag=$2 ;;
    --platform) platform=$2 ;;
    --endpoint) endpoint=$2 ;;
    --context) context=$2 ;;
    --timeout) timeout=$2 ;;
    *) usage "$1: no such option" ;;
  esac
  shift 2
done
[[ $timeout =~ ^[1-9][0-9]*$ ]] || usage "--timeout: '$timeout' is not a number of seconds"
[[ $endpoint =~ ^(PUBLIC_ENDPOINT|PRIVATE_ENDPOINT|VCN_HOSTNAME)$ ]] || usage "--endpoint: there is no '$endpoint'"
[ -z "$file" ] || [ -r "$file" ] || usage "--terraform-outputs: '$file' cannot be read"

# --- settings: from the file, then from the environment -----------------------------------------------------------
declare -A settings=()
number=0
while IFS= read -r line || [ -n "$line" ]; do
  number=$((number + 1))
  [[ -n $line && $line != '#'* ]] || continue
  # The line is not printed: it may be a secret.
  [[ $line =~ ^[A-Z][A-Z0-9_]*= ]] || usage "--terraform-outputs: line $number of '$file' is not NAME=value, as terraform output -raw env_file writes it"
  settings[${line%%=*}]=${line#*=}
done <"${file:-/dev/null}"
for name in $(compgen -e); do
  case $name in TOLLGATE_*__* | OCI_REGION | OCIR_* | OKE_CLUSTER_ID | *_KAFKA_USER | *_KAFKA_AUTH_TOKEN | POSTGRES_CA_BASE64 | SMOKE_API_KEY) settings[$name]=${!name} ;; esac
done

# --- check that nothing is missing --------------------------------------------------------------------------------
required=(OCI_REGION OCIR_REPOSITORY OCIR_USERNAME OCIR_PASSWORD POSTGRES_CA_BASE64
  TOLLGATE_KAFKA__BROKERS TOLLGATE_KAFKA__OCI__TENANCY TOLLGATE_KAFKA__OCI__STREAM_POOL TOLLGATE_KAFKA__AUTHENTICATION__KEYS
  INGEST_KAFKA_USER INGEST_KAFKA_AUTH_TOKEN SCORER_KAFKA_USER SCORER_KAFKA_AUTH_TOKEN
  PERSISTENCE_KAFKA_USER PERSISTENCE_KAFKA_AUTH_TOKEN NOTIFIER_KAFKA_USER NOTIFIER_KAFKA_AUTH_TOKEN
  LAG_KAFKA_USER LAG_KAFKA_AUTH_TOKEN
  TOLLGATE_PERSISTENCE__DATABASE_URL TOLLGATE_NOTIFIER__DELIVERY_LOG_URL
  TOLLGATE_INGEST__API_KEYS TOLLGATE_PERSISTENCE__API_KEYS SMOKE_API_KEY)
[ -n "$context" ] || required+=(OKE_CLUSTER_ID)
missing=()
for name in "${required[@]}"; do
  [ -n "${settings[$name]:-}" ] || { missing+=("$name: is not set, neither in the environment nor by --terraform-outputs") && settings[$name]=$name; }
done
for name in "${!settings[@]}"; do
  [[ ${settings[$name]} != *$'\n'* ]] || missing+=("$name: has more than one line")
done
for program in kubectl docker oci; do command -v "$program" >/dev/null || missing+=("$program: is not on PATH"); done
for path in deploy/Dockerfile "$overlay/kustomization.yaml"; do [ -e "$path" ] || missing+=("$path: is not in this checkout"); done
if [ -z "$tag" ]; then
  tag=$(git rev-parse --short=12 HEAD 2>/dev/null) || missing+=('--tag: must be given, since git finds no commit here')
  [ -z "$tag" ] || ! $images_wanted || [ -z "$(git --no-optional-locks status --porcelain)" ] ||
    missing+=("--tag: must be given, since the work tree has changes, and so is not $tag")
fi
if [ ${#missing[@]} -gt 0 ]; then
  printf 'oci-deploy: %s\n' "${missing[@]}" >&2
  $dry_run || die "nothing was done; ${#missing[@]} to be mended first"
fi

# --- run commands, or print them ----------------------------------------------------------------------------------
work=$(mktemp -d)
forwards=() current=''
cleanup() {
  local status=$?
  [ ${#forwards[@]} -eq 0 ] || kill "${forwards[@]}" 2>/dev/null || true
  rm -rf "$work"
  [ "$status" = 0 ] || $dry_run || say "ended with $status at: $current" >&2
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

step() { current=$*; printf '== %s\n' "$*"; }
# Secrets are passed in files and on standard input, so that no command line contains one.
run() { if $dry_run; then printf '    '; printf ' %q' "${@//"$work"/TMP}"; echo; else "$@"; fi; }
kube=(kubectl --namespace="$namespace")
if [ -n "$context" ]; then kube+=(--context="$context"); else kube+=(--kubeconfig="$work/kubeconfig"); fi
k() { run "${kube[@]}" "$@"; }

repository=${settings[OCIR_REPOSITORY]}
registry=${repository%%/*}

secrets=()
secret() { # NAME ARGUMENTS OF kubectl create secret generic…
  secrets+=("$1")
  if $dry_run; then k create secret generic "$@"; return; fi
  # Server-side, since client-side apply would keep a copy of the secret in an annotation.
  k create secret generic "$@" --dry-run=client --output=yaml | k apply --server-side --force-conflicts --field-manager=oci-deploy --filename=-
}

lines() { # PATTERN…: the settings whose names match
  local name pattern
  for name in "${!settings[@]}"; do
    # shellcheck disable=SC2053 # a pattern
    for pattern; do [[ $name != $pattern ]] || printf '%s=%s\n' "$name" "${settings[$name]}"; done
  done
}

# --- images -------------------------------------------------------------------------------------------------------
if $images_wanted; then
  step "log docker in to $registry, for a while, as whoever the oci command is"
  token=$(run oci raw-request --http-method GET --region "${settings[OCI_REGION]}" --target-uri "https://$registry/20180419/docker/token" \
    --query data.token --raw-output)
  ! $dry_run || printf '%s\n' "$token"
  run docker login "$registry" --username BEARER_TOKEN --password-stdin <<<"$token"
  for image in "${images[@]}"; do
    step "build and push the image of $image"
    run docker build --platform "$platform" --file deploy/Dockerfile --target "$image" --tag "$repository/$image:$tag" .
    run docker push "$repository/$image:$tag"
  done
fi

# --- namespace and secrets ----------------------------------------------------------------------------------------
if [ -z "$context" ]; then
  step 'ask OKE for a kubeconfig'
  run oci ce cluster create-kubeconfig --cluster-id "${settings[OKE_CLUSTER_ID]}" --region "${settings[OCI_REGION]}" \
    --file "$work/kubeconfig" --token-version 2.0.0 --kube-endpoint "$endpoint"
fi
step "make the namespace $namespace, if it is not there"
# Not applied: that would remove the labels that the manifests set.
if $dry_run || [ -z "$(k get namespace "$namespace" --ignore-not-found --output=name)" ]; then k create namespace "$namespace"; fi

step 'make the secrets, or bring them up to date'
# Each service gets its own section, its own user of Streaming, and the common settings.
for service in "${services[@]}"; do
  {
    lines "TOLLGATE_${service^^}__*"
    printf 'TOLLGATE_KAFKA__OCI__USER=%s\n' "${settings[${service^^}_KAFKA_USER]}"
    printf 'TOLLGATE_KAFKA__OCI__AUTH_TOKEN=%s\n' "${settings[${service^^}_KAFKA_AUTH_TOKEN]}"
  } >"$work/$service.env"
  secret "tollgate-$service" --from-env-file="$work/$service.env"
done
lines 'TOLLGATE_KAFKA__*' 'TOLLGATE_OCI__*' 'TOLLGATE_TELEMETRY__*' 'OTEL_*' >"$work/common.env"
secret tollgate-common --from-env-file="$work/common.env"
lines 'AWS_*' >"$work/objects.env"
secret tollgate-objects --from-env-file="$work/objects.env"
base64 -d <<<"${settings[POSTGRES_CA_BASE64]}" >"$work/ca.pem" 2>/dev/null || $dry_run || die 'POSTGRES_CA_BASE64: is not base64'
secret tollgate-postgres-ca --from-file=ca.pem="$work/ca.pem"
# KEDA reads the consumer lag from the log itself.
user=${settings[TOLLGATE_KAFKA__OCI__TENANCY]}/${settings[TOLLGATE_KAFKA__OCI__DOMAIN]:-}/${settings[LAG_KAFKA_USER]}/${settings[TOLLGATE_KAFKA__OCI__STREAM_POOL]}
printf '%s' "${user//\/\///}" >"$work/username"
printf '%s' "${settings[LAG_KAFKA_AUTH_TOKEN]}" >"$work/password"
secret tollgate-kafka-login --from-file=username="$work/username" --from-file=password="$work/password"
auth=$(printf '%s:%s' "${settings[OCIR_USERNAME]}" "${settings[OCIR_PASSWORD]}" | base64 | tr -d '\n')
printf '{"auths":{"%s":{"auth":"%s"}}}' "$registry" "$auth" >"$work/pull.json"
secret ocirsecret --type=kubernetes.io/dockerconfigjson --from-file=.dockerconfigjson="$work/pull.json"

# --- manifests ----------------------------------------------------------------------------------------------------
step "apply $overlay with these images"
versions=$($dry_run || k get secret "${secrets[@]}" --output='jsonpath={.items[*].metadata.resourceVersion}')
# A kustomization outside the work tree. It accepts relative paths only: up to the root, and down again.
mkdir "$work/kustomize"
up=$(cd "$work/kustomize" && pwd -P | sed 's:/[^/]*:../:g')
{
  printf 'apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: ["%s"]\n' "$up$(pwd -P | sed 's:^/::')/$overlay"
  printf 'labels: [{pairs: {%s}}]\n' "${part_of/=/: }"
  # Pods read secrets when they start: a changed secret changes this annotation, and so restarts the pods.
  printf 'commonAnnotations: {tollgate/secrets: "%s"}\nimages:\n' "${versions// /-}"
  for image in "${images[@]}"; do
    printf '  - {name: tollgate/%s, newName: "%s/%s", newTag: "%s"}\n' "$image" "$repository" "$image" "$tag"
  done
} >"$work/kustomize/kustomization.yaml"
! $dry_run || sed 's/^/     | /' "$work/kustomize/kustomization.yaml"
# The pod template of a job is immutable.
k delete jobs --selector="$part_of" --ignore-not-found
k apply --kustomize="$work/kustomize"

step 'wait for the jobs: topics, migrations'
deadline=$((SECONDS + timeout))
jobs=$(k get jobs --selector="$part_of" --output='jsonpath={.items[*].metadata.name}')
if $dry_run; then printf '%s\n' "$jobs" && jobs=''; fi
for job in $jobs; do
  until state=$(k get job "$job" --output='jsonpath={.status.conditions[?(@.status=="True")].type}') && [[ " $state " == *' Complete '* ]]; do
    if [[ " $state " == *' Failed '* ]] || [ $SECONDS -ge $deadline ]; then
      k logs "job/$job" --tail=20 >&2 || true
      die "job $job: ${state:-not complete} after at most $timeout seconds; its last lines are above"
    fi
    sleep 1
  done
  say "job $job: complete"
done

step 'wait for the rollouts'
for service in "${services[@]}"; do
  if ! k rollout status "deployment/$service" --timeout="${timeout}s"; then
    { k get pods --selector="$part_of" && k logs "deployment/$service" --tail=20; } >&2 || true
    die "deployment $service: its rollout did not succeed within $timeout seconds; the pods and their logs are above"
  fi
done

# --- smoke test ---------------------------------------------------------------------------------------------------
id=deploy-$tag-$(date -u +%s)
step "smoke test: transaction $id through ingest, its decision from the read API"
if $dry_run; then
  k port-forward service/ingest :8080
  k port-forward service/persistence :8082
  [ ${#missing[@]} -eq 0 ] || die "not ready for this plan: ${#missing[@]} to be mended first, named above"
  exit
fi

forward() { # SERVICE PORT: sets $port
  : >"$work/$1.forward"
  "${kube[@]}" port-forward "service/$1" ":$2" >>"$work/$1.forward" 2>&1 &
  forwards+=($!)
  until port=$(sed -n 's/^Forwarding from 127\.0\.0\.1:\([0-9]*\) .*/\1/p' "$work/$1.forward") && [ -n "$port" ]; do
    if ! kill -0 $! 2>/dev/null || [ $SECONDS -ge $deadline ]; then die "port-forward to $1: $(cat "$work/$1.forward")"; fi
    sleep 0.2
  done
}

ask() { # METHOD PATH BODY: sets $answer, from the status code on; in bash itself, so that no command line contains the key
  answer=$(
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    printf '%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer %s\r\nPrefer: wait=30\r\n' "$1" "$2" "${settings[SMOKE_API_KEY]}" >&3
    printf 'Content-Type: application/json\r\nContent-Length: %s\r\n\r\n%s' "${#3}" "$3" >&3
    while IFS= read -r -t 40 line <&3 || [ -n "$line" ]; do printf '%s\n' "$line"; done
  ) 2>/dev/null || true
  answer=${answer#HTTP/1.1 }
}

deadline=$((SECONDS + timeout))
forward ingest 8080
ask POST /v1/transactions "{\"transaction_id\":\"$id\",\"user_id\":\"tollgate-deploy\",\"amount\":\"1.00\",\"timestamp\":\"$(date -u +%Y-%m-%dT%H:%M:%SZ)\"}"
case $answer in
  200*) ;;
  202*) say 'accepted, but not decided within 30 seconds: scorers may be starting' ;;
  *) die "ingest answered: ${answer:-nothing}" ;;
esac
forward persistence 8082
until ask GET "/v1/decisions/$id" '' && [[ $answer == 200*"\"$id\""* ]]; do
  [ $SECONDS -lt $deadline ] || die "the decision on $id is not stored after $timeout seconds; the read API answered: ${answer:-nothing}"
  sleep 1
done
say "decided and stored: Tollgate $tag is up"
