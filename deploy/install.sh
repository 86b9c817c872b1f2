#!/bin/sh
# What the Dockerfile's stages run: python, tools, tenfold EXTRAS, user. Nothing of it is left in an image.
#
# A machine that reaches package registries in a way of its own passes it in as build secrets, all optional and none
# of them kept: apt_sources (a sources.list), apt_conf, pip_conf and ca (certificates, PEM).
set -eu
secrets=/run/secrets

apt() {
    set -- -qq "$@"
    test ! -s "$secrets/apt_sources" || set -- -o "Dir::Etc::sourcelist=$secrets/apt_sources" -o Dir::Etc::sourceparts=- "$@"
    test ! -s "$secrets/apt_conf" || export APT_CONFIG="$secrets/apt_conf"
    test ! -s "$secrets/ca" || set -- -o "Acquire::https::CAInfo=$secrets/ca" "$@"
    DEBIAN_FRONTEND=noninteractive apt-get -o Dpkg::Use-Pty=0 -o APT::Sandbox::User=root "$@"
}

install_packages() { # the package manager's lists and caches go again
    apt update
    apt upgrade -y --no-install-recommends
    test $# = 0 || apt install -y --no-install-recommends "$@"
    apt clean
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/debconf/*-old /var/log/apt /var/log/dpkg.log \
        /var/log/alternatives.log
}

recent() { python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

case $1 in
python) # the base's own Python where it has a recent one, else the distribution's
    if recent; then install_packages; else install_packages python3; fi
    recent || { echo "The base image offers no Python 3.11 or later." >&2; exit 1; }
    ;;
tools) # what installing needs and running doesn't
    python3 -c 'import ensurepip' 2>/dev/null || install_packages python3-venv
    ;;
tenfold) # /opt/tenfold: an environment of its own, without pip, its bytecode compiled once and for all
    test ! -s "$secrets/pip_conf" || export PIP_CONFIG_FILE="$secrets/pip_conf"
    test ! -s "$secrets/ca" || export PIP_CERT="$secrets/ca" SSL_CERT_FILE="$secrets/ca"
    export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
    python3 -m venv /tmp/installer
    python3 -m venv --without-pip /opt/tenfold
    # the versions that tenfold is tested with are those of one Python; another gets the newest that fit
    pins=$(python3 -c 'import sys; print("-c requirements.lock" if sys.version_info[:2] == (3, 11) else "")')
    # shellcheck disable=SC2086
    /tmp/installer/bin/pip --quiet --python /opt/tenfold/bin/python install --no-compile $pins ".[$2]"
    find /opt/tenfold -name __pycache__ -type d -prune -exec rm -rf {} +
    # checked against no source file: the root filesystem is read-only, and a copied file's time is no matter
    /opt/tenfold/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/tenfold/lib || true
    /opt/tenfold/bin/python -c 'import tenfold.predict'
    ;;
user) # a user by number, which Kubernetes can see is not root
    echo 'tenfold:x:10001:10001:tenfold:/tmp:/usr/sbin/nologin' >>/etc/passwd
    echo 'tenfold:x:10001:' >>/etc/group
    mkdir -p /opt/ml/model
    ;;
*)
    echo "install.sh: no step is called $1" >&2
    exit 2
    ;;
esac
