# One image for everything of ours but the scorer: set-up, enrich, trainer, monitor, and the MLflow server.
FROM python:3.11.14-slim-bookworm
RUN useradd --system --create-home --home-dir /var/lib/oddlog oddlog \
 && mkdir -p /opt/oddlog /var/lib/mlflow /var/lib/oddlog/monitor \
 && chown oddlog /opt/oddlog /var/lib/mlflow /var/lib/oddlog/monitor
WORKDIR /opt/oddlog
COPY requirements.lock ./
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock
COPY pyproject.toml README.md gates.toml drift.toml ./
COPY oddlog oddlog
COPY training training
COPY serving serving
COPY monitoring monitoring
COPY cli cli
COPY deploy/images deploy/images
RUN pip install --no-cache-dir --no-deps -e . && mkdir -p mlruns && chown oddlog mlruns
USER oddlog
CMD ["oddlog", "--help"]
