"""The larger image: `make test-image TARGET=bcc`."""

from pathlib import Path

from tests.image.made import run_in

_TYPES = """
typedef unsigned char u8, __u8;
typedef unsigned short u16, __u16, __be16, __le16, __sum16;
typedef unsigned int u32, __u32, __be32, __wsum;
typedef unsigned long long u64, __u64, __be64;
typedef signed char s8, __s8;
typedef short s16, __s16;
typedef int s32, __s32;
typedef long long s64, __s64;
typedef __u64 __aligned_u64 __attribute__((aligned(8)));
typedef _Bool bool;
typedef unsigned long size_t, uintptr_t;
"""
_HEADERS = {
    "include/linux/kconfig.h": "#define CONFIG_BPF_SYSCALL 1\n",
    "include/linux/version.h": "#define LINUX_VERSION_CODE 0\n#define KERNEL_VERSION(a, b, c) (a << 16)\n",
    "include/linux/types.h": _TYPES,
    **dict.fromkeys(
        ("include/linux/bpf_common.h", "include/linux/log2.h", "include/asm/page.h", "include/uapi/linux/bpf.h",
         "include/uapi/linux/if_ether.h", "include/uapi/linux/if_packet.h"),
        "",
    ),
}  # fmt: skip
_COMPILE = """
import os
os.environ["BCC_KERNEL_SOURCE"] = "/tmp/kernel"
from bcc import BPF, lib
made = BPF(text="int answers(void *context) { return 1; }")
print(len(made.dump_func("answers")) // 8, "instructions")
"""


def test_it_compiles_a_kernel_program(root: Path) -> None:
    """Of a kernel whose headers are a few lines: what is asked here is the compiler, not a kernel's version."""
    for name, text in _HEADERS.items():
        path = root / "tmp/kernel" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert run_in(root, "/usr/bin/python3", "-c", _COMPILE, uid=0) == "2 instructions\n"
