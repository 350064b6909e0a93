"""Where things are inside a template."""

AGENT_PATH = "/usr/lib/cove/python"
GO_ROOT = "/usr/lib/go"
GO_CACHE = "/usr/lib/cove/go-cache"
NODE_PREFIX = "/usr"
HOME = "/home/user"
MATPLOTLIB = f"{HOME}/.config/matplotlib"

BASE_ENVIRONMENT = {
    "PATH": f"{HOME}/.local/bin:/usr/local/bin:/usr/bin:/usr/sbin",
    "HOME": HOME,
    "USER": "user",
    "LOGNAME": "user",
    "SHELL": "/bin/bash",
    "LANG": "C.UTF-8",
    "TZ": "Etc/UTC",
    "TERM": "xterm-256color",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
    "PIP_NO_INPUT": "1",
    # A process with threads cannot be forked safely, and a sandbox is forked from one that has numpy loaded.
    "OPENBLAS_NUM_THREADS": "1",
    "IPYTHONDIR": f"{HOME}/.config/ipython",
}
ROOT_ENVIRONMENT = {
    "PATH": "/root/.local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "USER": "root",
    "LOGNAME": "root",
    "IPYTHONDIR": "/root/.config/ipython",
}
"""Of programs that run as root inside, in place of the above."""

NODE_ENVIRONMENT = {
    "NODE_PATH": f"{HOME}/.local/lib/node_modules:/usr/lib/node_modules",
    "NPM_CONFIG_PREFIX": f"{HOME}/.local",
    "NPM_CONFIG_UPDATE_NOTIFIER": "false",
    "NPM_CONFIG_FUND": "false",
    "NPM_CONFIG_AUDIT": "false",
    # Where there is no network, npm gives up after seconds, not after more than a minute.
    "NPM_CONFIG_FETCH_RETRY_MINTIMEOUT": "1000",
    "NPM_CONFIG_FETCH_RETRY_MAXTIMEOUT": "3000",
}
ROOT_NODE_ENVIRONMENT = {
    "NODE_PATH": "/usr/local/lib/node_modules:/usr/lib/node_modules",
    "NPM_CONFIG_PREFIX": "/usr/local",
}
GO_ENVIRONMENT = {
    "GOROOT": GO_ROOT,
    "GOPATH": f"{HOME}/go",
    "GOCACHE": GO_CACHE,
    "GOFLAGS": "-mod=mod",
    # No compiler for C is inside, and no other toolchain is fetched.
    "GOTOOLCHAIN": "local",
    "CGO_ENABLED": "0",
}
PLOT_ENVIRONMENT = {"MPLBACKEND": "agg", "MPLCONFIGDIR": MATPLOTLIB}
