"""
A Ray cluster on this machine, on loopback only: a head without cores, and nodes of one core each.

It writes its address. For each line of its input, it starts a node, and writes the process id of its raylet. It ends when
its input ends.

    python ray_cluster.py FOLDER   # Ray's sockets and logs go there; the path must be short
"""

import os
import sys

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Otherwise Ray takes the machine's own address for 127.0.0.1.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

from ray.cluster_utils import Cluster

COMMON = {"node_ip_address": "127.0.0.1", "object_store_memory": 80 << 20, "temp_dir": sys.argv[1]}


def say(line: object) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    without = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
    cluster = Cluster(initialize_head=True, head_node_args={**COMMON, **without, "num_cpus": 0})
    say(cluster.address)
    for _ in sys.stdin:
        node = cluster.add_node(**COMMON, num_cpus=1)
        say(node.all_processes["raylet"][0].process.pid)
    cluster.shutdown()
