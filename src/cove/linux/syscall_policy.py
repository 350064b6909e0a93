"""Which system calls code in a sandbox may make: one readable table, from which docs/seccomp.md is generated.

What is not listed fails with EPERM; `REFUSED` says why, for what is left out on purpose.
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
        " membarrier memfd_create pkey_alloc pkey_free pkey_mprotect mseal map_shadow_stack",
    ),
    _family(
        "files by path and descriptor; the kernel checks permissions as for any unprivileged user, and a root inside"
        " may only change files whose owners are the sandbox's own",
        "read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 open openat openat2 creat close"
        " close_range stat fstat lstat newfstatat statx lseek access faccessat faccessat2 readlink readlinkat"
        " rename renameat renameat2 link linkat symlink symlinkat unlink unlinkat mkdir mkdirat rmdir mknod mknodat"
        " chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat truncate ftruncate fallocate fsync fdatasync"
        " sync syncfs sync_file_range fadvise64 readahead sendfile splice tee copy_file_range getdents"
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
        "identity: without capabilities these only read, or set what the process is already; a root inside changes to"
        " other users of the sandbox's own range",
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
        "connect bind listen accept accept4 getsockname getpeername sendto recvfrom sendmsg recvmsg"
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
    "socket": "unix; IPv4 and IPv6 for TCP and UDP (raw and other kinds EPERM, other protocols such as SCTP and MPTCP"
    " EPROTONOSUPPORT); netlink's routing family; everything else EAFNOSUPPORT, before the kernel loads a module",
    "socketpair": "unix only; everything else EAFNOSUPPORT",
    "setsockopt": "allowed, but for programs that are attached to sockets (SO_ATTACH_*: EPERM). SO_LINGER is accepted"
    " and ignored: a descriptor passed out of the sandbox and dropped there must not make whoever drops it wait"
    " (socket(7))",
    "ioctl": "allowed, but for typing into a terminal (TIOCSTI, TIOCLINUX) and for line disciplines (TIOCSETD), which"
    " load drivers into the kernel: EPERM",
    "personality": "only the values that run ordinary Linux programs; EPERM for others (address layout)",
}

REFUSED: Final[tuple[Family, ...]] = (
    _family("loads programs into the kernel, or watches it and all processes", "bpf perf_event_open"),
    _family("keys are not in a namespace of the sandbox's", "keyctl add_key request_key"),
    _family("stops the kernel in the middle of its work: makes races easy to win", "userfaultfd"),
    _family(
        "does the work of other calls behind the filter's back, and was a common way out",
        "io_uring_setup io_uring_enter io_uring_register io_setup io_submit io_getevents io_pgetevents io_cancel"
        " io_destroy",
    ),
    _family(
        "changes the running kernel",
        "init_module finit_module delete_module create_module kexec_load kexec_file_load reboot syslog iopl ioperm"
        " modify_ldt lookup_dcookie",
    ),
    _family(
        "opens files by number instead of by path: reaches what is not below the root",
        "open_by_handle_at name_to_handle_at",
    ),
    _family(
        "changes what is mounted, the old way and the new one",
        "mount umount2 pivot_root chroot fsopen fsconfig fsmount fspick move_mount open_tree open_tree_attr"
        " mount_setattr statmount listmount quotactl quotactl_fd swapon swapoff",
    ),
    _family("makes or enters namespaces, where a process has all capabilities", "unshare setns"),
    _family(
        "reads or changes other processes: also the agent runs as the sandbox's user",
        "ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd kcmp",
    ),
    _family(
        "gives pages of a process to a pipe by reference: part of several ways to write to files that are open for"
        " reading only",
        "vmsplice",
    ),
    _family(
        "the machine's clock, names, accounting, memory placement",
        "settimeofday clock_settime clock_adjtime clock_adjtime64 adjtimex sethostname setdomainname acct"
        " move_pages migrate_pages set_mempolicy_home_node vhangup nfsservctl",
    ),
    _family("watches files of the whole machine", "fanotify_init fanotify_mark"),
    _family("memory that the kernel itself cannot see, against debugging and limits", "memfd_secret"),
    _family("replaced long ago, and seldom tested since", "uselib ustat sysfs _sysctl remap_file_pages"),
)
"""Left out on purpose, with the reason. The filter does not use this: whatever is not allowed is refused."""
