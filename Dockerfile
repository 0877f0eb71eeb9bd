# Built offline: `make wheels` fetches all that is needed, as tests/image/requirements.txt pins it, and `make image` builds.
ARG PYTHON=python:3.11.14-slim-bookworm

FROM ${PYTHON} AS build
COPY tests/image/requirements.txt /requirements.txt
COPY wheels /wheels
# Compiled here, because nothing can be written where it runs. What installs has no business there.
RUN python -m venv /opt/cropduster \
    && /opt/cropduster/bin/pip install --no-cache-dir --no-index --find-links /wheels --require-hashes -r /requirements.txt \
    && /opt/cropduster/bin/pip install --no-cache-dir --no-index --no-deps /wheels/cropduster-*.whl \
    && /opt/cropduster/bin/pip uninstall --yes setuptools pip

FROM ${PYTHON}
LABEL org.opencontainers.image.title="cropduster" \
      org.opencontainers.image.description="Sprays, desprays and copies huge files between storage planes" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --user-group --no-log-init --home-dir /var/lib/cropduster --shell /usr/sbin/nologin cropduster \
    && install -d -o cropduster -g cropduster -m 0700 /var/lib/cropduster
COPY --from=build /opt/cropduster /opt/cropduster
ENV PATH=/opt/cropduster/bin:$PATH \
    HOME=/var/lib/cropduster \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /var/lib/cropduster
ENTRYPOINT ["cropduster"]
CMD ["serve"]
