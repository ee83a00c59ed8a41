#!/usr/bin/env bash
# Runs a verb on two nodes, both on this machine: two network namespaces joined by a cable of their
# own, and one launcher in each. What works here works on two machines; nothing is shared but files.
#
#   bash scripts/two_nodes.sh VERB CONFIG [key=value ...]
#
# For example
#   bash scripts/two_nodes.sh select configs/experiments/quickstart.yaml selection.budget=0.2
#   LAUNCHER=deepspeed bash scripts/two_nodes.sh train configs/experiments/llava15_7b_lora.yaml
#
# Needs Linux, iproute2 and root (or sudo without password). NPROC=n starts n processes a node;
# LAUNCHER is torchrun unless it is deepspeed, which reads a hostfile and is started on each node
# (--no_ssh), as the two share no ssh.
set -euo pipefail
if [ $# -lt 2 ]; then
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
  exit 2
fi
launcher="${LAUNCHER:-torchrun}"
case "$launcher" in torchrun | deepspeed) ;; *)
  echo "error: LAUNCHER is $launcher; expected torchrun or deepspeed" >&2
  exit 2
  ;;
esac
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="${PRISM_TUNE_VENV:-$root/.venv}"
python="$venv/bin/python"
[[ "$PATH" == */sbin* ]] || PATH="$PATH:/usr/sbin:/sbin"
command -v ip >/dev/null || {
  echo "error: the command ip is missing; install iproute2 (apt-get install iproute2)" >&2
  exit 1
}

as_root=() as_user=()
if [ "$(id -u)" -ne 0 ]; then
  as_root=(sudo -n) as_user=(sudo -n -E -u "$(id -un)" "PATH=$PATH")
fi
root_ip() { ${as_root[@]+"${as_root[@]}"} ip "$@"; }

nodes=("prism_tune_$$_0" "prism_tune_$$_1")
launchers=()
hostfile="$(mktemp)"
clean_up() {
  local pid node
  for pid in ${launchers[@]+"${launchers[@]}"}; do kill "$pid" 2>/dev/null || true; done
  wait || true
  for node in "${nodes[@]}"; do root_ip netns delete "$node" 2>/dev/null || true; done
  rm -f "$hostfile"
}
trap clean_up EXIT

for node in "${nodes[@]}"; do root_ip netns add "$node"; done
# Both ends are made inside the namespaces, so that the machine's own network is left alone.
root_ip link add eth0 netns "${nodes[0]}" type veth peer name eth0 netns "${nodes[1]}"
for rank in 0 1; do
  root_ip -n "${nodes[rank]}" address add "10.0.0.$((rank + 1))/24" dev eth0
  root_ip -n "${nodes[rank]}" link set eth0 up
  root_ip -n "${nodes[rank]}" link set lo up # torchrun speaks to its own workers over it
done

printf "node%d slots=${NPROC:-1}\n" 0 1 >"$hostfile"
chmod a+r "$hostfile"
launch() { # rank of the node, argument of prism-tune ...
  local rank="$1" command
  shift
  if [ "$launcher" = torchrun ]; then
    command=(torch.distributed.run --nnodes=2 "--nproc_per_node=${NPROC:-1}"
      "--local_addr=10.0.0.$((rank + 1))" -m)
  else
    command=(deepspeed.launcher.runner "--hostfile=$hostfile" --no_ssh --no_local_rank --module)
  fi
  # The options that both have stand before the others, the module and its arguments behind them.
  ${as_root[@]+"${as_root[@]}"} ip netns exec "${nodes[rank]}" ${as_user[@]+"${as_user[@]}"} \
    env GLOO_SOCKET_IFNAME=eth0 NCCL_SOCKET_IFNAME=eth0 OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" \
    "$python" -m "${command[0]}" "--node_rank=$rank" --master_addr=10.0.0.1 --master_port=29500 \
    "${command[@]:1}" prism_tune "$@"
}
for rank in 0 1; do
  launch "$rank" "$@" &
  launchers+=($!)
done
code=0
for pid in "${launchers[@]}"; do wait "$pid" || code=1; done
launchers=()
exit "$code"
