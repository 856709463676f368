# huntress-bridge as an image: not root, fit for a read-only root file system, dependencies locked by hash.
#
#     docker build -t huntress-bridge .
#
# Another package index than pip's own: --build-arg PIP_INDEX_URL=...

FROM python:3.13-slim AS build
ARG PIP_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv /opt/huntress-bridge && python -m venv /opt/builder
COPY requirements.lock .ci/build.lock ./
# Wheels only, so that building runs nobody's set-up code.
RUN /opt/huntress-bridge/bin/pip install --only-binary :all: --require-hashes -r requirements.lock \
    && /opt/builder/bin/pip install --only-binary :all: --require-hashes -r build.lock
COPY pyproject.toml README.md ./
COPY bridge bridge
COPY connectors connectors
COPY templates templates
RUN /opt/builder/bin/hatchling build -t wheel -d dist \
    && /opt/huntress-bridge/bin/pip install --no-deps dist/*.whl \
    && /opt/huntress-bridge/bin/pip uninstall -y pip

FROM python:3.13-slim
COPY --from=build /opt/huntress-bridge /opt/huntress-bridge
ENV PATH=/opt/huntress-bridge/bin:$PATH
# The base image carries no compiled standard library, and a read-only one cannot keep it: without this every health check
# would compile it again.
RUN python -c 'import bridge.cli, bridge.health, bridge.processes, bridge.runtime, bridge.web.server' \
    && mkdir /config /data && chown 1000:1000 /data
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 BRIDGE_DATA_DIR=/data
# bridge.toml is looked for here, and what it names by relative paths.
WORKDIR /config
USER 1000:1000
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["huntress-bridge"]
CMD ["run"]
