# shellcheck shell=bash
# What the tests and benchmarks need beside Rust: PostgreSQL, Apache Kafka, kcat. Sourced by tests/run and tests/bench.
#
# Each `need_…` finds its program, or fetches it, prints how, starts it in a folder of its own and exports where it is:
# TEST_POSTGRES_URL, TEST_KAFKA_BROKERS and TEST_KAFKA_TOOL, TEST_KCAT, TEST_TOXIPROXY, TEST_S3_ENDPOINT. One that is exported already is used as it is.
# Where nothing works, it returns 1 with the reason in $REASON. Everything started here ends with the script.
#
# A Kafka that runs as a process of this machine has secured listeners too, in the ways of OCI's two streaming services:
# TEST_KAFKA_TLS        a folder: ca.pem, client.pem and client.key (PKCS#8) for TEST_KAFKA_MTLS, stranger-ca.pem that has signed nothing
# TEST_KAFKA_SASL_PLAIN SASL_SSL with PLAIN, for TEST_KAFKA_SASL_USER and TEST_KAFKA_SASL_DOMAIN_USER with TEST_KAFKA_SASL_PASSWORD
# TEST_KAFKA_SCRAM      SASL_SSL with SCRAM-SHA-512, for TEST_KAFKA_SCRAM_USER with TEST_KAFKA_SCRAM_PASSWORD; not for a librdkafka before
#                       2.6.1, as that of Debian 12's kcat: it sends the nonce in a way that Kafka no longer takes
# TEST_KAFKA_MTLS       SSL, for those with a certificate
# TEST_KAFKA_RECYCLED   as TEST_KAFKA_SASL_PLAIN, for a proxy of the test's to listen at; TEST_KAFKA_BEHIND_RECYCLED is where the broker does
# Any other Kafka has none of these; TEST_KAFKA_TLS is set only for this one.
#
# Of some a test starts as many as it likes, with ports and folders of its own; these are paths to the programs:
# TEST_COLLECTOR        an OpenTelemetry Collector that writes what it takes to files, by need_collector; it runs with --config and
#                       TEST_COLLECTOR_CONFIG, the head of which lists its other variables
# TEST_PROMETHEUS       Prometheus, and TEST_PROMTOOL its promtool, by need_prometheus
# TEST_DASHBOARD_CHECK  prints what is wrong with each FILE as a Grafana dashboard, by need_dashboard_check

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
kafka_version=$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$here/tools/kafka/pom.xml")
# The profile of everything that tests compile, and where cargo puts it. Benchmarks use --release.
profile=fast target=${CARGO_TARGET_DIR:-target}
# shellcheck disable=SC2034 # of the scripts that source this
harness=$target/$profile/harness
work=$(mktemp -d "${TMPDIR:-/tmp}/tollgate-XXXXXX")
# PostgreSQL runs as another user when this script runs as root, and has to reach its folder.
chmod 711 "$work"

REASON=
postgres_stop=() containers=() group=''

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

cleanup() {
  trap '' INT TERM
  if [ -n "$group" ] && kill -TERM -- "-$group" 2>/dev/null; then
    # A script of this kind in the group needs time for its own.
    for _ in $(seq "${cleanup_tenths:-50}"); do kill -0 -- "-$group" 2>/dev/null || break; sleep 0.1; done
    kill -KILL -- "-$group" 2>/dev/null
  fi
  local pid
  for pid in "$work"/*.pid; do [ ! -e "$pid" ] || kill -KILL "$(cat "$pid")" 2>/dev/null; done
  [ ${#postgres_stop[@]} -eq 0 ] || "${postgres_stop[@]}" >/dev/null 2>&1
  [ ${#containers[@]} -eq 0 ] || docker rm -f "${containers[@]}" >/dev/null 2>&1
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Runs a command as a process group of its own, so that it ends with this script, whatever it has started.
in_group() {
  local status=0
  setsid "$@" &
  group=$!
  wait "$group" || status=$?
  group=
  return "$status"
}

# A port without a listener that this script has not returned before: the program may take a while to listen there.
free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 10000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || ! mkdir "$work/port-$port" 2>/dev/null || break
  done
  echo "$port"
}

is_root() { [ "$(id -u)" = 0 ]; }

apt_install() {
  is_root || { REASON="$1 is not installed, and only root may install packages"; return 1; }
  command -v apt-get >/dev/null || { REASON="$1 is not installed, and there is no apt-get"; return 1; }
  if [ ! -e "$work/apt-updated" ]; then
    apt-get update -qq </dev/null >"$work/apt.log" 2>&1 || { REASON="apt-get update: $(tail -1 "$work/apt.log")"; return 1; }
    touch "$work/apt-updated"
  fi
  say "installing $* with apt-get"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" </dev/null >"$work/apt.log" 2>&1 ||
    { REASON="apt-get install $*: $(tail -1 "$work/apt.log")"; return 1; }
}

docker_works() { command -v docker >/dev/null && timeout 10 docker info >/dev/null 2>&1; }

# Waits until a command succeeds: wait_for SECONDS COMMAND…
wait_for() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || return 1
    sleep 0.1
  done
}

answers() {
  local port
  for port; do (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || return 1; done
}

# Starts a program that listens on a port, and waits until it answers: start NAME PORT SECONDS COMMAND…
start() {
  local name=$1 port=$2 seconds=$3
  shift 3
  "$@" >"$work/$name.log" 2>&1 </dev/null &
  echo $! >"$work/$name.pid"
  disown
  wait_for "$seconds" answers "$port" || { REASON="$name does not answer: $(tail -1 "$work/$name.log")"; return 1; }
}

# --- PostgreSQL ---------------------------------------------------------------------------------------------------

# The folder of initdb and pg_ctl: on PATH, or the newest of Debian's.
postgres_bin() {
  local initdb
  initdb=$(command -v initdb) && { dirname "$(readlink -f "$initdb")"; return; }
  for initdb in $(printf '%s\n' /usr/lib/postgresql/*/bin/initdb | sort -rV); do
    [ -x "$initdb" ] && { dirname "$initdb"; return; }
  done
  return 1
}

# As whom PostgreSQL runs, since it refuses root.
postgres_as() {
  is_root || return 0
  local user=nobody
  ! id postgres >/dev/null 2>&1 || user=postgres
  printf '%s\n' setpriv "--reuid=$user" "--regid=$(id -g "$user")" --clear-groups
}

need_postgres() {
  if [ -n "${TEST_POSTGRES_URL:-}" ]; then say "PostgreSQL: the one at TEST_POSTGRES_URL"; return 0; fi
  local bin port dir as=()
  if ! bin=$(postgres_bin); then
    if is_root && command -v apt-get >/dev/null; then
      # Debian's package would start a cluster of its own, on the usual port.
      if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
      fi
      apt_install postgresql && bin=$(postgres_bin)
    fi || { postgres_container; return; }
  fi
  [ -n "${bin:-}" ] || { postgres_container; return; }
  port=$(free_port) dir=$work/postgres
  mkdir "$dir"
  mapfile -t as < <(postgres_as)
  if is_root; then chown "$(id -u "${as[1]#--reuid=}")" "$dir"; fi
  if ! (cd "$dir" && "${as[@]}" "$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C --no-sync) >"$work/initdb.log" 2>&1; then
    REASON="initdb: $(tail -1 "$work/initdb.log")"
    return 1
  fi
  # The data is gone after the run anyway, so nothing waits for the disk.
  cat >"$work/postgres-control" <<T
#!/usr/bin/env bash
# start, or kill: an end without a checkpoint, as by a crash.
cd "$dir" || exit
case \$1 in
  start) ${as[*]@Q} "$bin/pg_ctl" -D "$dir/data" -w -t 60 -l "$dir/log" start -o "-c listen_addresses=127.0.0.1 -c port=$port \
    -c unix_socket_directories=$dir -c fsync=off -c full_page_writes=off -c max_connections=200" ;;
  kill) ${as[*]@Q} "$bin/pg_ctl" -D "$dir/data" -m immediate stop ;;
  *) exit 2 ;;
esac
T
  chmod +x "$work/postgres-control"
  if ! "$work/postgres-control" start >"$work/pg_ctl.log" 2>&1; then
    REASON="PostgreSQL does not start: $(tail -1 "$dir/log" 2>/dev/null || tail -1 "$work/pg_ctl.log")"
    return 1
  fi
  postgres_stop=("$work/postgres-control" kill)
  export TEST_POSTGRES_CONTROL=$work/postgres-control TEST_POSTGRES_URL=postgres://postgres@127.0.0.1:$port/postgres
  say "PostgreSQL: $("$bin/postgres" --version), of $bin, on port $port"
}

postgres_container() {
  docker_works || { REASON="${REASON:-no initdb on PATH or in /usr/lib/postgresql}; docker does not work either"; return 1; }
  local port name=tollgate-postgres-$$
  port=$(free_port)
  docker run -d --rm --name "$name" -e POSTGRES_HOST_AUTH_METHOD=trust -p "127.0.0.1:$port:5432" postgres:17 \
    -c fsync=off -c max_connections=200 >/dev/null 2>"$work/docker.log" || { REASON="docker run postgres:17: $(tail -1 "$work/docker.log")"; return 1; }
  containers+=("$name")
  # The image starts the server once for its own setup, on a socket only; TCP means that it is there to stay.
  wait_for 60 docker exec "$name" pg_isready -h 127.0.0.1 -U postgres || { REASON="the container postgres:17 does not answer"; return 1; }
  export TEST_POSTGRES_URL=postgres://postgres@127.0.0.1:$port/postgres
  say "PostgreSQL: a container of postgres:17 on port $port"
}

# --- Apache Kafka -------------------------------------------------------------------------------------------------

java_17() {
  local java version
  for java in "$(command -v java)" /usr/lib/jvm/*/bin/java; do
    [ -x "$java" ] || continue
    version=$("$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p')
    [ "${version:-0}" -lt 17 ] || { echo "$java"; return; }
  done
  return 1
}

# Sets $java and $jars.
kafka_jars() {
  jars=${XDG_CACHE_HOME:-$HOME/.cache}/tollgate/kafka-$kafka_version
  if ! java=$(java_17); then
    # Debian names it by its version; any from 17 on will do.
    apt_install openjdk-17-jre-headless || apt_install openjdk-21-jre-headless || apt_install default-jre-headless || return 1
    java=$(java_17) || { REASON='no Java 17 or newer'; return 1; }
  fi
  [ ! -d "$jars" ] || return 0
  command -v mvn >/dev/null || apt_install maven || return 1
  say "fetching Kafka $kafka_version with Maven into $jars"
  mkdir -p "$(dirname "$jars")"
  rm -rf "$jars.partial"
  mvn -q -B -f "$here/tools/kafka/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$jars.partial" \
    </dev/null >"$work/mvn.log" 2>&1 || { REASON="mvn: $(grep -m1 ERROR "$work/mvn.log" || tail -1 "$work/mvn.log")"; return 1; }
  # In one step, so that a folder that is there is whole.
  mv -T "$jars.partial" "$jars"
}

kafka_sasl_user=acme/payments-svc/ocid1.streampool.oc1.eu-frankfurt-1.test
kafka_sasl_domain_user=acme/Default/payments-svc/ocid1.streampool.oc1.eu-frankfurt-1.test
kafka_scram_user=payments-svc
# With what a client's configuration may stumble over, as OCI's auth tokens are; but no " or \, for the broker's own.
kafka_password="To)ken;{with}'odd #=\$chars"

# The certificates of the secured listeners: kafka_tls DIR
kafka_tls() {
  command -v openssl >/dev/null || apt_install openssl || return 1
  mkdir "$1"
  # The machine's own configuration of openssl would add to them.
  cat >"$1/openssl.cnf" <<C
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
[server]
subjectAltName = IP:127.0.0.1, DNS:localhost
extendedKeyUsage = serverAuth
[client]
extendedKeyUsage = clientAuth
C
  if ! (
    cd "$1" || exit
    new=(openssl req -config openssl.cnf -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
    for ca in ca stranger-ca; do
      "${new[@]}" -x509 -extensions ca -days 2 -subj "/CN=tollgate test $ca" -keyout "$ca.key" -out "$ca.pem" || exit
    done
    for of in server client; do
      "${new[@]}" -subj "/CN=$of" -keyout "$of.key" -out "$of.csr" &&
        openssl x509 -req -in "$of.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile openssl.cnf -extensions "$of" -out "$of.pem" || exit
    done
    # Kafka wants both in one file.
    cat server.key server.pem >server-store.pem
  ) >"$1/log" 2>&1; then
    REASON="openssl: $(grep -m1 -i error "$1/log" || tail -1 "$1/log")"
    return 1
  fi
}

# The broker's properties for its secured listeners: kafka_secured TLS-DIR
kafka_secured() {
  local name users='' of_login=org.apache.kafka.common.security
  # What these may do is up to the test of permissions. All others may do everything.
  for name in ingest scorer persistence notifier operator producer; do users+=" \"user_tollgate-$name\"=\"$kafka_password\""; done
  cat <<P
ssl.keystore.type=PEM
ssl.keystore.location=$1/server-store.pem
ssl.truststore.type=PEM
ssl.truststore.location=$1/ca.pem
listener.name.mtls.ssl.client.auth=required
listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.scram.scram-sha-512.sasl.jaas.config=$of_login.scram.ScramLoginModule required;
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:$kafka_sasl_user;User:$kafka_sasl_domain_user;User:$kafka_scram_user;User:CN=client
P
  for name in saslplain recycled; do
    cat <<P
listener.name.$name.sasl.enabled.mechanisms=PLAIN
listener.name.$name.plain.sasl.jaas.config=$of_login.plain.PlainLoginModule required \
  "user_$kafka_sasl_user"="$kafka_password" "user_$kafka_sasl_domain_user"="$kafka_password"$users;
P
  done
}

# Where $behind_proxy is a port, the broker has a second listener, whose address it gives its clients as that port of
# this machine: a client that asks the proxy for the brokers reaches them through it.
need_kafka() {
  if [ -n "${TEST_KAFKA_BROKERS:-}" ]; then say "Kafka: the one at TEST_KAFKA_BROKERS"; return 0; fi
  local java jars port controller proxied plain scram mtls recycled behind_recycled dir=$work/kafka
  mkdir "$dir"
  { kafka_jars && kafka_tls "$dir/tls"; } || { kafka_container; return; }
  port=$(free_port) controller=$(free_port) proxied=$(free_port)
  plain=$(free_port) scram=$(free_port) mtls=$(free_port) recycled=$(free_port) behind_recycled=$(free_port)
  local secured=SASLPLAIN://127.0.0.1:$plain,SCRAM://127.0.0.1:$scram,MTLS://127.0.0.1:$mtls,RECYCLED://127.0.0.1
  cat >"$dir/server.properties" <<P
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,PROXIED://127.0.0.1:$proxied,$secured:$behind_recycled,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port,PROXIED://127.0.0.1:${behind_proxy:-$proxied},$secured:$recycled
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT,SASLPLAIN:SASL_SSL,SCRAM:SASL_SSL,MTLS:SSL,RECYCLED:SASL_SSL
log.dirs=$dir/data
auto.create.topics.enable=false
num.partitions=12
offsets.topic.num.partitions=8
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
$(kafka_secured "$dir/tls")
P
  cat >"$work/kafka-tool" <<T
#!/usr/bin/env bash
# One of Kafka's console tools, by its name without the \`kafka-\` and \`.sh\` of the distribution.
case \$1 in
  topics) class=TopicCommand ;;
  acls) class=AclCommand ;;
  console-producer) class=ConsoleProducer ;;
  console-consumer) class=consumer.ConsoleConsumer ;;
  consumer-groups) class=consumer.group.ConsumerGroupCommand ;;
  get-offsets) class=GetOffsetShell ;;
  *) echo "no tool \$1" >&2; exit 2 ;;
esac
exec "$java" -Xmx256m -cp "$jars/*" -Dorg.apache.logging.log4j.level=ERROR "org.apache.kafka.tools.\$class" "\${@:2}"
T
  chmod +x "$work/kafka-tool"
  # An id of Kafka's form; its own tool takes a second for one.
  if ! "$java" -cp "$jars/*" kafka.tools.StorageTool format --config "$dir/server.properties" \
    --cluster-id "$(head -c 16 /dev/urandom | base64 | tr -d = | tr +/ AB)" \
    --add-scram "SCRAM-SHA-512=[name=\"$kafka_scram_user\",password=\"$kafka_password\"]" >"$dir/format.log" 2>&1; then
    REASON="Kafka's storage format: $(tail -1 "$dir/format.log")"
    return 1
  fi
  cat >"$work/kafka-control" <<T
#!/usr/bin/env bash
# start, or kill. It returns before the broker answers.
case \$1 in
  start)
    setsid "$java" -Xms512m -Xmx512m -XX:+UseG1GC -cp "$jars/*" -Dorg.apache.logging.log4j.level=WARN kafka.Kafka "$dir/server.properties" \
      >>"$dir/log" 2>&1 </dev/null &
    echo \$! >"$work/kafka.pid" ;;
  kill)
    kill -KILL "\$(cat "$work/kafka.pid")"
    while kill -0 "\$(cat "$work/kafka.pid")" 2>/dev/null; do sleep 0.05; done ;;
  *) exit 2 ;;
esac
T
  chmod +x "$work/kafka-control"
  "$work/kafka-control" start
  if ! wait_for 60 answers "$port" "$proxied" "$plain" "$scram" "$mtls" "$behind_recycled"; then
    REASON="Kafka does not answer: $(grep -m1 -E 'ERROR|Exception' "$dir/log" || tail -1 "$dir/log")"
    return 1
  fi
  export TEST_KAFKA_BROKERS=127.0.0.1:$port TEST_KAFKA_TOOL=$work/kafka-tool TEST_KAFKA_CONTROL=$work/kafka-control
  export TEST_KAFKA_PROXIED=127.0.0.1:${behind_proxy:-$proxied} TEST_KAFKA_BEHIND_PROXY=127.0.0.1:$proxied
  export TEST_KAFKA_TLS=$dir/tls TEST_KAFKA_MTLS=127.0.0.1:$mtls
  export TEST_KAFKA_SASL_PLAIN=127.0.0.1:$plain TEST_KAFKA_SASL_USER=$kafka_sasl_user
  export TEST_KAFKA_SASL_DOMAIN_USER=$kafka_sasl_domain_user TEST_KAFKA_SASL_PASSWORD=$kafka_password
  export TEST_KAFKA_SCRAM=127.0.0.1:$scram TEST_KAFKA_SCRAM_USER=$kafka_scram_user TEST_KAFKA_SCRAM_PASSWORD=$kafka_password
  export TEST_KAFKA_RECYCLED=127.0.0.1:$recycled TEST_KAFKA_BEHIND_RECYCLED=127.0.0.1:$behind_recycled
  say "Kafka: $kafka_version, of $jars, on port $port"
}

kafka_container() {
  docker_works || { REASON="${REASON:-no Java}; docker does not work either"; return 1; }
  local port name=tollgate-kafka-$$ image=apache/kafka:$kafka_version
  port=$(free_port)
  docker run -d --rm --name "$name" -p "127.0.0.1:$port:$port" \
    -e KAFKA_NODE_ID=1 -e KAFKA_PROCESS_ROLES=broker,controller \
    -e KAFKA_CONTROLLER_QUORUM_VOTERS=1@localhost:9093 -e KAFKA_CONTROLLER_LISTENER_NAMES=CONTROLLER \
    -e KAFKA_LISTENER_SECURITY_PROTOCOL_MAP=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT \
    -e "KAFKA_LISTENERS=PLAINTEXT://:$port,CONTROLLER://:9093" -e "KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://127.0.0.1:$port" \
    -e KAFKA_AUTO_CREATE_TOPICS_ENABLE=false -e KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR=1 \
    -e KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS=8 -e KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS=0 \
    -e KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR=1 -e KAFKA_TRANSACTION_STATE_LOG_MIN_ISR=1 \
    "$image" >/dev/null 2>"$work/docker.log" || { REASON="docker run $image: $(tail -1 "$work/docker.log")"; return 1; }
  containers+=("$name")
  # shellcheck disable=SC2016 # expanded where it runs
  printf '#!/usr/bin/env bash\nexec docker exec -i %s "/opt/kafka/bin/kafka-$1.sh" "${@:2}"\n' "$name" >"$work/kafka-tool"
  chmod +x "$work/kafka-tool"
  # Docker's proxy takes connections before the broker does.
  wait_for 90 "$work/kafka-tool" topics --bootstrap-server "127.0.0.1:$port" --list || { REASON="the container $image does not answer"; return 1; }
  export TEST_KAFKA_BROKERS=127.0.0.1:$port TEST_KAFKA_TOOL=$work/kafka-tool
  say "Kafka: a container of $image on port $port"
}

need_kcat() {
  if [ -z "${TEST_KCAT:-}" ]; then
    TEST_KCAT=$(command -v kcat || command -v kafkacat) || { apt_install kcat && TEST_KCAT=$(command -v kcat); } || return 1
  fi
  export TEST_KCAT
  say "kcat: $TEST_KCAT"
}

# That the broker and the database can be killed and started: not those of containers.
need_control() {
  if [ -z "${TEST_KAFKA_CONTROL:-}" ] || [ -z "${TEST_POSTGRES_CONTROL:-}" ]; then
    REASON='Kafka and PostgreSQL as processes of this machine; a container is not killed and started here'
    return 1
  fi
}

# --- an S3 server -------------------------------------------------------------------------------------------------

moto_version=5.2.5

# A Python environment that holds a package, made where it is not there: python_with NAME PACKAGE. Sets $python.
python_with() {
  local dir=${XDG_CACHE_HOME:-$HOME/.cache}/tollgate/$1
  python=$dir/bin/python3
  [ ! -e "$dir/complete" ] || return 0
  # Debian's Python makes no environments without this package.
  if ! python3 -c 'import ensurepip' 2>/dev/null; then apt_install python3-venv || return 1; fi
  say "installing $2 with pip into $dir"
  rm -rf "$dir"
  if ! { python3 -m venv "$dir" && "$dir/bin/pip" install -q "$2"; } </dev/null >"$work/pip.log" 2>&1; then
    REASON="pip install $2: $(tail -1 "$work/pip.log")"
    rm -rf "$dir"
    return 1
  fi
  touch "$dir/complete"
}

need_s3() {
  if [ -n "${TEST_S3_ENDPOINT:-}" ]; then say "S3: the one at TEST_S3_ENDPOINT"; return 0; fi
  local python port
  python_with "moto-$moto_version" "moto[server]==$moto_version" || return 1
  port=$(free_port)
  start moto "$port" 60 "$python" -m moto.server -H 127.0.0.1 -p "$port" || return 1
  export TEST_S3_ENDPOINT=http://127.0.0.1:$port
  say "S3: moto $moto_version, on port $port"
}

# --- Oracle's SDK for Python --------------------------------------------------------------------------------------

oci_sdk_version=2.189.0

need_oci_sdk() {
  if [ -z "${TEST_OCI_PYTHON:-}" ]; then
    local python
    python_with "oci-sdk-$oci_sdk_version" "oci==$oci_sdk_version" || return 1
    export TEST_OCI_PYTHON=$python
  fi
  say "Oracle's SDK for Python: $oci_sdk_version, of $TEST_OCI_PYTHON"
}

# --- programs that Go builds --------------------------------------------------------------------------------------

# Builds a program once, into a folder of its own: go_program FOLDER NAME DIR PACKAGE, with PACKAGE seen from DIR. Sets $program.
go_program() {
  local dir=${XDG_CACHE_HOME:-$HOME/.cache}/tollgate/$1 partial wanted found
  program=$dir/$2 partial=$dir.partial.$$
  [ ! -x "$program" ] || return 0
  command -v go >/dev/null || apt_install golang-go || return 1
  if [ -e "$3/go.mod" ]; then
    # In this folder it prints the Go that it would build with: from 1.21 on it fetches the one that go.mod wants, if GOTOOLCHAIN lets it.
    wanted=$(sed -n 's/^go //p' "$3/go.mod")
    found=$(cd "$3" && go env GOVERSION 2>"$work/go.log") || { REASON="$2 needs Go $wanted: $(tail -1 "$work/go.log")"; return 1; }
    if [ "$(printf '%s\n' "$wanted" "${found#go}" | sort -V | head -1)" != "$wanted" ]; then
      REASON="$2 needs Go $wanted, and $(command -v go) is ${found#go}; one from 1.21 on would fetch it with GOTOOLCHAIN=auto"
      return 1
    fi
  fi
  say "building $1 with Go into $dir"
  mkdir -p "$partial"
  if ! (cd "$3" && GOBIN=$partial go install -buildvcs=false -trimpath -ldflags='-s -w' "$4") </dev/null >"$work/go.log" 2>&1; then
    REASON="go install of $1: $(tail -1 "$work/go.log")"
    rm -rf "$partial"
    return 1
  fi
  # In one step, so that a folder that is there is whole. Another run may have been faster.
  mv -T "$partial" "$dir" 2>"$work/go.log" || { rm -rf "$partial"; [ -x "$program" ]; } || { REASON=$(tail -1 "$work/go.log"); return 1; }
}

# One of this repository, anew for each state of its sources: own_go_program NAME DIR
own_go_program() {
  go_program "$1-$(cat "$2/go.mod" "$2/go.sum" "$2/main.go" | sha256sum | cut -c 1-12)" "$1" "$2" .
}

collector_program() { own_go_program otelcol "$here/tools/collector"; }

need_collector() {
  if [ -z "${TEST_COLLECTOR:-}" ]; then
    local program
    collector_program || return 1
    TEST_COLLECTOR=$program
  fi
  export TEST_COLLECTOR TEST_COLLECTOR_CONFIG=${TEST_COLLECTOR_CONFIG:-$here/tools/collector/config.yaml}
  say "OpenTelemetry Collector: $TEST_COLLECTOR"
}

need_dashboard_check() {
  if [ -z "${TEST_DASHBOARD_CHECK:-}" ]; then
    local program
    own_go_program dashboard-check "$here/tools/dashboard" || return 1
    TEST_DASHBOARD_CHECK=$program
  fi
  export TEST_DASHBOARD_CHECK
  say "the check of Grafana dashboards: $TEST_DASHBOARD_CHECK"
}

# --- Toxiproxy ----------------------------------------------------------------------------------------------------

toxiproxy_version=2.5.0

# Sets $toxiproxy.
toxiproxy_server() {
  toxiproxy=$(command -v toxiproxy-server) && return
  local program
  go_program "toxiproxy-$toxiproxy_version" server / "github.com/Shopify/toxiproxy/v2/cmd/server@v$toxiproxy_version" || return 1
  toxiproxy=$program
}

need_toxiproxy() {
  local toxiproxy port
  toxiproxy_server || return 1
  port=$(free_port)
  start toxiproxy "$port" 10 "$toxiproxy" -host 127.0.0.1 -port "$port" || return 1
  export TEST_TOXIPROXY=http://127.0.0.1:$port
  say "Toxiproxy: $toxiproxy, on port $port"
}

# --- Prometheus ---------------------------------------------------------------------------------------------------

prometheus_programs() {
  TEST_PROMETHEUS=${TEST_PROMETHEUS:-$(command -v prometheus)} && TEST_PROMTOOL=${TEST_PROMTOOL:-$(command -v promtool)}
}

need_prometheus() {
  if ! prometheus_programs; then
    # Debian's package would start a server of its own, on the usual port: it comes without what starts that, now or with the machine.
    printf 'DPkg::Options:: "--path-exclude=%s";\n' /{,usr/}lib/systemd/system/prometheus.service /etc/init.d/prometheus >"$work/prometheus-apt.conf"
    APT_CONFIG=$work/prometheus-apt.conf apt_install prometheus && prometheus_programs || return 1
  fi
  export TEST_PROMETHEUS TEST_PROMTOOL
  say "Prometheus: $TEST_PROMETHEUS, and $TEST_PROMTOOL"
}
