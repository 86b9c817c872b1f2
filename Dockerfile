# tenfold as an image: `serve` (the default) answers over HTTP, `train` also trains, on an NVIDIA card where there is one.
# docs/deploy.md says how to use them; deploy/build.sh builds and tries them without a Docker daemon.
#
#   docker build -t tenfold .
#   docker build -t tenfold-train --target train .
#   docker run --rm -p 8080:8080 -v "$PWD/runs/flowers-1:/opt/ml/model:ro" --read-only --tmpfs /tmp tenfold

# Any Debian or Ubuntu; one that brings Python 3.11 or later keeps it. Debian 12 has 3.11, whose versions are locked.
ARG BASE=debian:bookworm-slim
# PyTorch brings CUDA's libraries itself. Of this base come the settings by which a container is given the card, and the
# libraries that let an older driver work with them.
ARG TRAIN_BASE=nvidia/cuda:13.0.3-base-ubuntu24.04

# ---- what either image stands on: Python, and a user that is not root -------------------------------------------------

FROM ${BASE} AS python
USER 0
COPY deploy/install.sh /tmp/install.sh
RUN --mount=type=secret,id=apt_sources --mount=type=secret,id=apt_conf --mount=type=secret,id=ca \
    sh /tmp/install.sh python && sh /tmp/install.sh user && rm /tmp/install.sh

FROM ${TRAIN_BASE} AS train-python
USER 0
COPY deploy/install.sh /tmp/install.sh
RUN --mount=type=secret,id=apt_sources --mount=type=secret,id=apt_conf --mount=type=secret,id=ca \
    sh /tmp/install.sh python && sh /tmp/install.sh user && rm /tmp/install.sh

# ---- tenfold and what it needs, in /opt/tenfold; pip and the rest of these stages stay behind -------------------------

FROM python AS build
COPY deploy/install.sh /tmp/install.sh
RUN --mount=type=secret,id=apt_sources --mount=type=secret,id=apt_conf --mount=type=secret,id=ca \
    sh /tmp/install.sh tools
WORKDIR /src
COPY pyproject.toml requirements.lock README.md LICENSE NOTICE ./
COPY src src
RUN --mount=type=secret,id=pip_conf --mount=type=secret,id=ca --mount=type=cache,target=/root/.cache/pip \
    sh /tmp/install.sh tenfold serve

FROM train-python AS train-build
COPY deploy/install.sh /tmp/install.sh
RUN --mount=type=secret,id=apt_sources --mount=type=secret,id=apt_conf --mount=type=secret,id=ca \
    sh /tmp/install.sh tools
WORKDIR /src
COPY pyproject.toml requirements.lock README.md LICENSE NOTICE ./
COPY src src
RUN --mount=type=secret,id=pip_conf --mount=type=secret,id=ca --mount=type=cache,target=/root/.cache/pip \
    sh /tmp/install.sh tenfold torch,serve

# ---- train ------------------------------------------------------------------------------------------------------------

FROM train-python AS train
COPY --from=train-build /opt/tenfold /opt/tenfold
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tenfold-train" \
      org.opencontainers.image.description="Trains image classifiers, and serves them" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      com.amazonaws.sagemaker.capabilities.accept-bind-to-port="true"
ENV PATH=/opt/tenfold/bin:$PATH HOME=/tmp TENFOLD_CACHE=/tmp/tenfold PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /tmp
EXPOSE 8080
STOPSIGNAL SIGTERM
# The user stays root: SageMaker's folders in /opt/ml are root's. Elsewhere: docker run --user "$(id -u)".
ENTRYPOINT ["/opt/tenfold/bin/python", "-P", "-m", "tenfold.container"]
CMD ["train"]

# ---- serve: last, and so the default ----------------------------------------------------------------------------------

FROM python AS serve
COPY --from=build /opt/tenfold /opt/tenfold
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tenfold" \
      org.opencontainers.image.description="Serves image classifiers over HTTP" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      com.amazonaws.sagemaker.capabilities.accept-bind-to-port="true"
# Nothing is written but below /tmp, and there only what a request needs: the root filesystem may be read-only.
ENV PATH=/opt/tenfold/bin:$PATH HOME=/tmp TENFOLD_CACHE=/tmp/tenfold PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1
WORKDIR /tmp
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["/opt/tenfold/bin/python", "-P", "-m", "tenfold.container", "health"]
ENTRYPOINT ["/opt/tenfold/bin/python", "-P", "-m", "tenfold.container"]
CMD ["serve"]
