# vxsniff as an image: a mirror target that listens on UDP 4789 and serves /metrics and /healthz on 9478.
#   docker build -t vxsniff .
#   docker run --rm -p 4789:4789/udp -p 127.0.0.1:9478:9478 -e SNIFFER_MIRROR_VNIS=123 \
#     -e USAGE_LOGGERS_URL=https://collector.example/message vxsniff

FROM python:3.12-slim AS build
WORKDIR /src
# With a compiler at hand the hot part of vxsniff is compiled (mypyc).
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml setup.py README.md LICENSE ./
COPY vxsniff ./vxsniff
RUN python -m venv /opt/vxsniff && /opt/vxsniff/bin/pip install --no-cache-dir .

FROM python:3.12-slim
COPY --from=build /opt/vxsniff /opt/vxsniff
ENV PATH=/opt/vxsniff/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SNIFFER_METRICS_ADDRESS=0.0.0.0:9478
# Ports from 1024 on need no privileges.
RUN useradd --system --no-create-home --shell /usr/sbin/nologin vxsniff
USER vxsniff
EXPOSE 4789/udp 9478/tcp
HEALTHCHECK --interval=30s --timeout=5s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9478/healthz', timeout=4)"]
ENTRYPOINT ["vxsniff"]
