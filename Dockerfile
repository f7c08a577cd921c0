# vxsniff as an image: it takes the place of network-sniffer 1.4, variable for variable (docs/docker.md).
#   docker build -t vxsniff .
#   docker run -d --name netsniffer --env-file .env --network host vxsniff
#
# Any base with Python 3.11 or later as `python`, and apt, will do: --build-arg BASE=...

ARG BASE=python:3.12-slim

FROM ${BASE} AS build
WORKDIR /src
# With a compiler at hand the hot part of vxsniff is compiled (mypyc); the build fails when it is not.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
# --copies: the interpreter is a file of its own, which capabilities can be given to.
RUN python -m venv --copies /opt/vxsniff
COPY pyproject.toml setup.py README.md LICENSE ./
COPY vxsniff ./vxsniff
RUN /opt/vxsniff/bin/pip install --no-cache-dir '.[pcap]' && /opt/vxsniff/bin/vxsniff --version | grep compiled

FROM ${BASE}
COPY --from=build /opt/vxsniff /opt/vxsniff
# An ordinary user by number, as Kubernetes wants to see it. The interpreter may open devices where the container has
# CAP_NET_RAW (Docker's default); as that is permitted and not effective, it starts without it, too.
RUN apt-get update && apt-get install -y --no-install-recommends libcap2-bin \
    && setcap cap_net_raw,cap_net_admin+p "$(readlink -f /opt/vxsniff/bin/python)" \
    && apt-get purge -y --auto-remove libcap2-bin && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin vxsniff \
    && install -d -o vxsniff -g vxsniff -m 0700 /var/lib/vxsniff \
    && install -d /etc/vxsniff
# NET_DEVICE is there, and empty: as in network-sniffer 1.4, devices are captured on unless a mirror is spoken of
# (SNIFFER_MIRROR_..., SNIFFER_ENGINE, --vnis).
ENV PATH=/opt/vxsniff/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    STATE_DIRECTORY=/var/lib/vxsniff \
    RUNTIME_DIRECTORY=/var/lib/vxsniff/run \
    NET_DEVICE=
# The volume holds spool and control socket, all that is written. A .env that is mounted at /etc/vxsniff is read as well.
WORKDIR /etc/vxsniff
VOLUME /var/lib/vxsniff
USER 10001:10001
EXPOSE 4789/udp 6081/udp 9478/tcp
# SIGTERM: what was captured is finished and delivered, what can't be is spooled.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["vxsniff", "health"]
ENTRYPOINT ["vxsniff"]

ARG VERSION=0.1.0
ARG REVISION=
ARG CREATED=
LABEL org.opencontainers.image.title="vxsniff" \
      org.opencontainers.image.description="Records the HTTP API calls in mirrored network traffic" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
