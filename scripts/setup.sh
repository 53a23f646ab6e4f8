#!/bin/sh
# The packages of requirements.lock, and crgan itself, into the environment $VIRTUAL_ENV.
#
# setup.sh UV default  PyTorch as the package index has it: on Linux with CUDA's libraries
# setup.sh UV cpu      PyTorch without them, from PyTorch's own index of CPU builds
#
# What was installed is written to $VIRTUAL_ENV/.ready.
set -eu
uv=$1 build=$2
install="$uv pip install --quiet --compile-bytecode --no-deps"

# An entry is a line `name==version` and lines of hashes, which are indented.
entries() { awk -v names="$1" -v keep="$2" '/^[^ #]/ { here = ($0 ~ "^(" names ")==") } here == keep' requirements.lock; }
torch='torch|torchvision'
for_cuda="$torch|triton|nvidia-[^=]*|cuda-[^=]*"

case $build in
  default | cpu) ;;
  *) echo "setup: TORCH=$build is neither default nor cpu." >&2; exit 2 ;;
esac

# Each build satisfies the other's version, so what is there goes first. An empty file is an older one.
if [ -e "$VIRTUAL_ENV/.ready" ]; then
  there=$(cat "$VIRTUAL_ENV/.ready")
  if [ "${there:-default}" != "$build" ]; then
    # shellcheck disable=SC2046
    $uv pip uninstall --quiet $(entries "$for_cuda" 1 | sed -n 's/^\([^ ;=]*\)==.*/\1/p')
  fi
fi

if [ "$build" = cpu ]; then
  echo "setup: PyTorch without CUDA's libraries, which are 2.5 of the 3.1 GB of the default"
  pins=$(entries "$torch" 1 | sed -n 's/^\([^ ;]*==[^ ;]*\).*/\1/p')
  # shellcheck disable=SC2086
  if $install --torch-backend cpu $pins; then
    rest=$VIRTUAL_ENV/.lock-without-torch
    entries "$for_cuda" 0 >"$rest"
    $install --require-hashes --requirement "$rest"
  else
    echo "setup: the CPU build could not be installed from PyTorch's own index (see above)." \
      "Going on with the default build."
    build=default
  fi
fi
if [ "$build" = default ]; then
  echo "setup: downloading up to 3.1 GB into 5.8 GB (Linux), of which CUDA's libraries are 2.5 GB." \
    "A machine without a GPU needs none of them: make setup TORCH=cpu"
  $install --require-hashes --requirement requirements.lock
fi
$install --editable .
echo "$build" >"$VIRTUAL_ENV/.ready"
