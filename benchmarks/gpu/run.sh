#!/usr/bin/env bash
# Everything that a GPU must show, the most important first; each step has its own limit and is not done again once it has succeeded.
#
#   benchmarks/gpu/run.sh OUT [DATA]     all steps; results in OUT/*.json, table in OUT/table.md; DATA: a capture, else the embedded room
#   benchmarks/gpu/run.sh OUT --stand-ins      the same, small, without a GPU: torch in place of kernels, a device that is not there
#   benchmarks/gpu/run.sh --pack FILE          this checkout with wheels for Python 3.11 and 3.12, for a machine without a network
#
# There: python -m pip install --no-index --find-links wheels gsplat pytorch_msssim; torch and numpy must be there. Without nerfstudio
# the steps that need it are left out, and said to be. STEPS="parity lift" does those alone; remove a .json of OUT to do its step
# again.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

if [ "${1:-}" = --pack ]; then
  file=$(realpath -m "${2:?give the .tar.gz to write}")
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  mkdir "$work/vlm-fastgs"
  git -C "$root" archive HEAD vlmgs_ns tests benchmarks pyproject.toml README.md LICENSE | tar -x -C "$work/vlm-fastgs"
  for version in 3.11 3.12; do
    # numba is not among them: llvmlite alone is 40 to 60 MB for each version. Where it is missing, parity is with the float64 reference.
    python -m pip download -q --no-deps --only-binary=:all: --python-version "$version" --platform manylinux2014_x86_64 \
      -d "$work/vlm-fastgs/wheels" gsplat==1.4.0 jaxtyping wadler-lindig rich markdown-it-py mdurl pygments ninja numpy==1.26.4 pytorch_msssim
  done
  tar -C "$work" -czf "$file" vlm-fastgs
  size=$(($(stat -c %s "$file") / 1000000))
  echo "$file: $size MB"
  [ "$size" -le 60 ] || { echo "more than 60 MB" >&2; exit 1; }
  exit
fi

out=$(realpath -m "${1:?give the folder for results}")
shift
mkdir -p "$out"
cd "$root"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
while read -r name limit; do
  [ -z "${STEPS:-}" ] || [[ " $STEPS " == *" $name "* ]] || continue
  if [ -e "$out/$name.json" ] && ! grep -q '"failed"' "$out/$name.json"; then continue; fi
  echo "== $name (at most $limit s)"
  status=0
  timeout -k 10 "$limit" python benchmarks/gpu/steps.py "$name" "$out" "$@" >"$out/$name.log" 2>&1 </dev/null || status=$?
  [ "$status" = 0 ] || python benchmarks/gpu/steps.py failed "$out" --of "$name" --status "$status"
done < <(python benchmarks/gpu/steps.py names "$out")
python benchmarks/gpu/steps.py table "$out" | tee "$out/table.md"
