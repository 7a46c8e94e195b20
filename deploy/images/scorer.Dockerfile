# The scorer's image: the bento of the service, built here by `bentoml build` and served from where it was put. It has
# neither training, consumer nor command line; its models come from the registry.
FROM python:3.11.14-slim-bookworm AS packages
COPY deploy/bento/requirements.lock /opt/bento.lock
RUN pip install --no-cache-dir --no-deps --require-hashes -r /opt/bento.lock

FROM packages AS build
WORKDIR /build
ENV BENTOML_HOME=/built BENTOML_DO_NOT_TRACK=True
COPY pyproject.toml ./
COPY deploy/bento deploy/bento
COPY oddlog oddlog
COPY serving serving
RUN bentoml build --version image .

FROM packages
RUN useradd --system --create-home --home-dir /var/lib/oddlog oddlog \
 && mkdir /var/lib/oddlog/cache && chown oddlog /var/lib/oddlog/cache
COPY --from=build /built/bentos/oddlog/image /opt/bento
ENV ODDLOG_REGISTRY__CACHE_DIR=/var/lib/oddlog/cache BENTOML_DO_NOT_TRACK=True
USER oddlog
WORKDIR /var/lib/oddlog
CMD ["bentoml", "serve", "/opt/bento", "--host", "0.0.0.0", "--port", "3000"]
