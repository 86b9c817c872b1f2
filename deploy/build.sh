#!/usr/bin/env bash
# Builds the image and tries it: deploy/build.sh --help
#
# With Docker or Podman where one of them works here. Without, buildah builds, which needs no daemon but root, on a
# Debian made by debootstrap; and the image is tried in namespaces of its own, as deploy/try_image.py explains.
#
# How this machine reaches its package registries (pip's and apt's configuration) is handed to the build as secrets:
# the image keeps none of it, and no registry is named here.
# shellcheck disable=SC2016 # what apt-get indextargets fills in is no variable of the shell's
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'TEXT'
deploy/build.sh [options] [options of deploy/try_image.py]

  --target serve|train   which image (serve)
  --tag NAME             what it is called (tenfold, tenfold-train)
  --base IMAGE           what it is built on; "bootstrap" makes a Debian 12 with debootstrap, which needs root.
                         Default: the Dockerfile's own, with buildah "bootstrap"
  --with ENGINE          docker, podman or buildah (default: the first that works here)
  --no-try               build only

The server is tried with a model of the digits, trained for it, or with --run RUN and --pictures FOLDER.
TEXT
}

target=serve tag='' base='' with='' try=yes rest=()
while (($#)); do
    case $1 in
    --target) target=$2 && shift 2 ;;
    --tag) tag=$2 && shift 2 ;;
    --base) base=$2 && shift 2 ;;
    --with) with=$2 && shift 2 ;;
    --no-try) try=no && shift ;;
    -h | --help) usage && exit ;;
    *) rest+=("$1") && shift ;;
    esac
done
[[ $target == serve ]] && tag=${tag:-tenfold} || tag=${tag:-tenfold-$target}

die() { printf 'Error: %s\n' "$*" >&2 && exit 1; }
has() { command -v "$1" >/dev/null; }
need() { has "$1" || die "$1 is not installed here. On Debian: apt-get install $1"; }
tell() { printf '%s\n' "$*" >&2; }

python=.venv/bin/python
[[ -x $python ]] || python=python3
need "$python"

if [[ -z $with ]]; then
    if has docker && docker info >/dev/null 2>&1; then
        with=docker
    elif has podman && podman info >/dev/null 2>&1; then
        with=podman
    else
        with=buildah
    fi
fi
need "$with"
if [[ $with == buildah ]]; then
    [[ $(id -u) == 0 ]] || die "buildah is used as root here; docker or podman need not be."
    # overlay file systems can't lie on each other everywhere; plain folders always work
    buildah info >/dev/null 2>&1 || export STORAGE_DRIVER=vfs
    base=${base:-bootstrap}
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# ---- a Debian of our own ------------------------------------------------------------------------------------------

# As slim as Debian's own slim images: what they leave out, packages installed later leave out too.
bootstrap() { # bootstrap TAR
    need debootstrap
    [[ $(id -u) == 0 ]] || die "debootstrap needs root."
    local mirror='' root=$work/root
    if has apt-get; then # where this machine gets its packages from
        mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' \
            'Component: main' 2>/dev/null | sed -n 1p)
    fi
    tell "debootstrap makes a Debian 12, once: about a minute"
    # shellcheck disable=SC2086 # none, or one
    debootstrap --variant=minbase bookworm "$root" $mirror >"$work/debootstrap.log" 2>&1 ||
        { tail -5 "$work/debootstrap.log" >&2 && die "debootstrap failed."; }
    printf 'path-exclude /usr/share/%s/*\n' doc groff info linda lintian locale man >"$root/etc/dpkg/dpkg.cfg.d/slim"
    rm -rf "$root"/usr/share/{doc,groff,info,linda,lintian,locale,man}/* "$root"/var/lib/apt/lists/* \
        "$root"/var/cache/apt/{archives/*.deb,*.bin} "$root"/var/log/{*.log,apt} "$root"/etc/apt/sources.list \
        "$root"/etc/{resolv.conf,hostname}
    mkdir -p "$(dirname "$1")"
    tar -C "$root" -cf "$1.part" . && mv "$1.part" "$1"
    rm -rf "$root"
}

if [[ $base == bootstrap ]]; then
    tar=${TENFOLD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tenfold}/images/debian-12-slim-$(uname -m).tar
    [[ -f $tar ]] || bootstrap "$tar"
    base=localhost/tenfold-base:bookworm
    if [[ -n $("$with" images --quiet "$base") && ! $tar -nt $work ]]; then
        : # it was taken in before
    elif [[ $with == buildah ]]; then
        made=$(buildah from scratch)
        buildah add --quiet "$made" "$tar" / >/dev/null
        buildah commit --quiet --rm "$made" "$base" >/dev/null
    else
        "$with" import "$tar" "$base" >/dev/null
    fi
fi

# ---- how packages are reached from here ---------------------------------------------------------------------------

options=()
secret() { [[ ! -s $work/$1 ]] || options+=(--secret "id=$1,src=$work/$1"); }

if has apt-get; then
    # A base without sources of its own has none to be reached by: it gets this machine's. Others keep theirs.
    if [[ $base == localhost/tenfold-base:* ]]; then
        apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' \
            'Origin: Debian' 2>/dev/null | grep -E ' bookworm(-updates|-security)? ' >"$work/apt_sources" || true
    fi
    apt-config dump | grep -E '^Acquire::(https?::Proxy|Check-Valid-Until|Check-Date|Retries)' >"$work/apt_conf" || true
fi

# Folders that pip is told to look in are mounted while packages are installed; a mount leaves an empty folder behind, so
# not in the image that serves, and Docker can't.
mounts=no
[[ $with == docker || $target == serve ]] || mounts=yes
volumes=()
pip_settings() { # pip's own configuration as one file
    "$python" -m pip config list 2>/dev/null | MOUNTS=$mounts "$python" -c '
import ast, os, sys
from pathlib import Path
wanted = "index-url extra-index-url find-links trusted-host proxy timeout retries prefer-binary"
kept = {}
for line in sys.stdin:
    key, _, value = line.strip().partition("=")
    name = key.rpartition(".")[2]
    if name in wanted.split():
        for word in ast.literal_eval(value).split():
            if word.startswith("file:"):
                continue  # an index on this disk names files that may lie anywhere on it
            if word.startswith("/"):
                if os.environ["MOUNTS"] == "no" or not Path(word).is_dir():
                    continue
                print(word, file=sys.stderr)
            if word not in kept.setdefault(name, []):
                kept[name].append(word)
print("[global]")
for name, words in kept.items():
    print(name, "=", " ".join(words))
' >"$work/pip_conf" 2>"$work/folders"
    while read -r folder; do volumes+=(--volume "$folder:$folder:ro"); done < <(sort -u "$work/folders")
}
"$python" -m pip --version >/dev/null 2>&1 && pip_settings
ca=$("$python" -m pip config list 2>/dev/null | sed -nE "s/^(:env:|global)\.cert='(.*)'/\2/p" | sed -n 1p)
ca=${ca:-${SSL_CERT_FILE:-}}
[[ -z $ca || ! -r $ca ]] || cp "$ca" "$work/ca"
for name in apt_sources apt_conf pip_conf ca; do secret "$name"; done

# ---- build --------------------------------------------------------------------------------------------------------

if [[ -n $base ]]; then
    [[ $target == serve ]] && options+=(--build-arg "BASE=$base") || options+=(--build-arg "TRAIN_BASE=$base")
fi
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
[[ -z $(git status --porcelain 2>/dev/null) ]] || revision=$revision-changed
version=$(sed -nE 's/^version = "(.*)"/\1/p' pyproject.toml)
options+=(--build-arg "VERSION=$version" --build-arg "REVISION=$revision" --target "$target" --tag "$tag")
[[ $with == docker ]] || options+=("${volumes[@]}" --format docker) # the other format has no place for HEALTHCHECK

tell "$with builds $tag (target $target${base:+, on $base})"
case $with in
docker) call=(docker build --progress=plain) ;;
podman) call=(podman build) ;;
buildah) call=(buildah bud --isolation chroot) ;;
esac
DOCKER_BUILDKIT=1 "${call[@]}" "${options[@]}" . >"$work/build.log" 2>&1 || { tail -40 "$work/build.log" >&2 && die "$with failed."; }

if [[ $try == yes ]]; then
    tell "and it is tried"
    "$python" deploy/try_image.py --with "$with" --target "$target" "$tag" "${rest[@]}"
fi
