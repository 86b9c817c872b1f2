#!/bin/sh
# What the Dockerfile's stages run: python, user, tools, tenfold EXTRAS. Nothing of this file is left in an image.
#
# A machine that reaches package registries in a way of its own hands it in as build secrets, all of them optional and
# none of them kept: apt_sources (a sources.list), apt_conf, pip_conf and ca (certificates, PEM). deploy/build.sh does.
set -eu
secrets=/run/secrets

apt() {
    set -- -qq -o Dpkg::Use-Pty=0 "$@"
    if test -s $secrets/apt_sources; then
        set -- -o Dir::Etc::sourcelist=$secrets/apt_sources -o Dir::Etc::sourceparts=- "$@"
    fi
    if test -s $secrets/ca; then set -- -o Acquire::https::CAInfo=$secrets/ca "$@"; fi
    if test -s $secrets/apt_conf; then export APT_CONFIG=$secrets/apt_conf; fi
    DEBIAN_FRONTEND=noninteractive apt-get "$@" >/dev/null
}

install_packages() { # and what has been fixed since the base was made; lists, caches and logs go again
    apt update
    apt upgrade -y --no-install-recommends
    if test $# -gt 0; then apt install -y --no-install-recommends "$@"; fi
    apt clean
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/debconf/*-old /var/log/apt /var/log/*.log
}

recent() { python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

case $1 in
python) # the base's own Python where it has a recent one, else the distribution's
    if recent; then install_packages; else install_packages python3; fi
    if ! recent; then
        echo "The base image brings no Python 3.11 or later, and its distribution has none." >&2
        exit 1
    fi
    ;;
user) # by a number, by which Kubernetes sees that it is not root
    echo 'tenfold:x:10001:10001:tenfold:/tmp:/usr/sbin/nologin' >>/etc/passwd
    echo 'tenfold:x:10001:' >>/etc/group
    mkdir -p /opt/ml/model
    ;;
tools) # what installing needs and running does not
    if ! python3 -c 'import ensurepip' 2>/dev/null; then install_packages python3-venv; fi
    ;;
tenfold) # /opt/tenfold: an environment without pip, its bytecode compiled once and for all
    if test -s $secrets/pip_conf; then export PIP_CONFIG_FILE=$secrets/pip_conf; fi
    if test -s $secrets/ca; then export PIP_CERT=$secrets/ca; fi
    python3 -m venv /tmp/installer
    python3 -m venv --without-pip /opt/tenfold
    # the versions that tenfold is tested with are those of one Python; another gets the newest that fit
    pins=$(python3 -c 'import sys; print("--constraint=requirements.lock" if sys.version_info[:2] == (3, 11) else "")')
    # shellcheck disable=SC2086 # none, or one
    PIP_DISABLE_PIP_VERSION_CHECK=1 /tmp/installer/bin/pip --quiet --python /opt/tenfold/bin/python \
        install --no-compile $pins ".[$2]"
    find /opt/tenfold/lib -type d '(' -name tests -path '*/numpy/*' -o -name __pycache__ ')' -prune -exec rm -rf {} +
    # Not compared with the source's time when it is loaded: neither changes in an image. Some packages carry files that
    # are no Python of this version, and never imported.
    /opt/tenfold/bin/python -m compileall -qq -j 0 --invalidation-mode unchecked-hash /opt/tenfold/lib || true
    /opt/tenfold/bin/python -c 'import tenfold.predict, tenfold.container'
    ;;
*)
    echo "install.sh has no step $1" >&2
    exit 2
    ;;
esac
