# One image for serve, worker and migrate.
# Python 3.11: the version that the lock file is resolved for and that the tests run on.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ENV UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 UV_PYTHON=/opt/venv/bin/python
WORKDIR /src

# uv comes from the lock file too, by hash, and stays behind in this stage.
COPY requirements.lock ./
RUN awk '/^uv==/ {on=1; print; next} /^[^ ]/ {on=0} on' requirements.lock > uv.lock \
    && python -m venv /opt/uv \
    && /opt/uv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r uv.lock \
    && /opt/uv/bin/uv venv --python "$(command -v python)" /opt/venv

# What pyproject.toml asks for, without its dev group, at the versions and hashes of the lock file: with
# --require-hashes uv refuses whatever the constraints do not name with a hash.
# EXTRA=google-genai or google-generativeai adds one of Google's SDKs.
ARG EXTRA=""
COPY pyproject.toml ./
RUN /opt/uv/bin/uv pip install --require-hashes --constraint requirements.lock ${EXTRA:+--extra "$EXTRA"} \
    -r pyproject.toml

COPY README.md LICENSE ./
COPY domain domain
COPY application application
COPY adapters adapters
COPY entrypoints entrypoints
RUN /opt/uv/bin/uv pip install --no-deps --build-constraint requirements.lock --require-build-hashes .


FROM python:${PYTHON}-slim
# HOST: whatever is run, in development too, is reached from outside the container.
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOST=0.0.0.0
COPY --from=build /opt/venv /opt/venv
# A number, so that an orchestrator can see that it is not root.
USER 10001:10001
WORKDIR /
EXPOSE 8000
STOPSIGNAL SIGTERM
# No HEALTHCHECK: the image runs three kinds of processes. docker-compose.yml has one for each.
# No ENTRYPOINT: some platforms put it before the command that they are given, others replace it.
CMD ["gemini-backend", "serve"]
