"""Which system calls code in a sandbox may make: one readable table.

What is not listed fails with EPERM. Left out on purpose, as they reach far into the kernel or beyond the sandbox:
bpf, perf_event_open, keyctl and relatives, userfaultfd, io_uring, kernel modules, kexec, open_by_handle_at,
mount and its relatives, new namespaces, ptrace and process_vm_*, pidfd_getfd, kcmp, quotactl, acct, reboot,
swapon, settimeofday and relatives, iopl, syslog, legacy AIO, lookup_dcookie, NUMA page moves.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Family:
    """A group of calls that are allowed for one reason."""

    reason: str
    calls: tuple[str, ...]


def _family(reason: str, calls: str) -> Family:
    return Family(reason, tuple(calls.split()))


FAMILIES: Final[tuple[Family, ...]] = (
    _family(
        "memory of the process itself",
        "brk mmap munmap mprotect mremap madvise msync mincore mlock mlock2 munlock mlockall munlockall"
        " membarrier memfd_create pkey_alloc pkey_free pkey_mprotect mseal map_shadow_stack remap_file_pages",
    ),
    _family(
        "files by path and descriptor; the kernel checks permissions as for any unprivileged user",
        "read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 open openat openat2 creat close"
        " close_range stat fstat lstat newfstatat statx lseek access faccessat faccessat2 readlink readlinkat"
        " rename renameat renameat2 link linkat symlink symlinkat unlink unlinkat mkdir mkdirat rmdir mknod mknodat"
        " chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat truncate ftruncate fallocate fsync fdatasync"
        " sync syncfs sync_file_range fadvise64 readahead sendfile splice tee vmsplice copy_file_range getdents"
        " getdents64 getcwd chdir fchdir umask statfs fstatfs utime utimes utimensat futimesat flock fcntl dup dup2"
        " dup3 pipe pipe2 cachestat setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr"
        " flistxattr removexattr lremovexattr fremovexattr setxattrat getxattrat listxattrat removexattrat",
    ),
    _family(
        "waiting for events",
        "poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd"
        " eventfd2 signalfd signalfd4 timerfd_create timerfd_settime timerfd_gettime inotify_init inotify_init1"
        " inotify_add_watch inotify_rm_watch",
    ),
    _family(
        "processes and threads of the sandbox (its PID namespace hides all others)",
        "fork vfork execve execveat exit exit_group wait4 waitid getpid gettid getppid getpgid getpgrp getsid setpgid"
        " setsid kill tkill tgkill pidfd_open pidfd_send_signal process_mrelease prctl arch_prctl set_tid_address"
        " set_robust_list get_robust_list rseq futex futex_waitv futex_wake futex_wait futex_requeue",
    ),
    _family(
        "identity: without capabilities these only read, or set what the process is already",
        "getuid geteuid getgid getegid getresuid getresgid getgroups setuid setgid setreuid setregid setresuid"
        " setresgid setgroups setfsuid setfsgid capget capset",
    ),
    _family(
        "scheduling and limits, only downwards",
        "sched_yield sched_getaffinity sched_setaffinity sched_getparam sched_setparam sched_getscheduler"
        " sched_setscheduler sched_getattr sched_setattr sched_get_priority_max sched_get_priority_min"
        " sched_rr_get_interval getpriority setpriority ioprio_get ioprio_set getrlimit setrlimit prlimit64 getrusage"
        " times getcpu get_mempolicy set_mempolicy mbind",
    ),
    _family(
        "signals to the process itself",
        "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigpending rt_sigtimedwait rt_sigqueueinfo"
        " rt_tgsigqueueinfo sigaltstack pause alarm restart_syscall",
    ),
    _family(
        "reading clocks, timers",
        "clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time timer_create timer_settime"
        " timer_gettime timer_getoverrun timer_delete setitimer getitimer",
    ),
    _family(
        "sockets in the sandbox's own network namespace (which families: see CONDITIONAL)",
        "socketpair connect bind listen accept accept4 getsockname getpeername sendto recvfrom sendmsg recvmsg"
        " sendmmsg recvmmsg shutdown getsockopt",
    ),
    _family(
        "System V and POSIX IPC in the sandbox's own IPC namespace",
        "shmget shmat shmctl shmdt semget semop semctl semtimedop msgget msgsnd msgrcv msgctl mq_open mq_unlink"
        " mq_timedsend mq_timedreceive mq_notify mq_getsetattr",
    ),
    _family(
        "facts about the machine, random numbers",
        "uname sysinfo getrandom",
    ),
    _family(
        "restricting oneself further",
        "seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self",
    ),
)

CONDITIONAL: Final[dict[str, str]] = {
    "clone": "allowed without CLONE_NEW*: threads and children, no new namespaces",
    "clone3": "ENOSYS, so that the C library falls back to clone: its flags cannot be seen by a filter",
    "socket": "unix, IPv4, IPv6 (not raw), and netlink's routing family; everything else EAFNOSUPPORT",
    "setsockopt": "allowed; SO_LINGER is accepted and ignored: a descriptor passed out of the sandbox and dropped there"
    " must not make whoever drops it wait (socket(7))",
    "ioctl": "allowed but for typing into the terminal (TIOCSTI, TIOCLINUX)",
    "personality": "only the values that run ordinary Linux programs",
}
