# JupyterLab on the labs without their solutions, as a user who is not root. The work is kept in the volume labs-work:
#   docker build -t labs .
#   docker run --rm -p 127.0.0.1:8888:8888 -v labs-work:/course/student labs
# PyTorch's default build brings CUDA's libraries. The build for CPUs alone is smaller; its index has an address of its
# own, which pytorch.org names:
#   docker build -t labs --build-arg PIP_EXTRA_INDEX_URL=ADDRESS .
FROM python:3.12-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home student \
    && install --directory --owner=student --group=student /course /venv
USER student
WORKDIR /course
ENV PATH=/venv/bin:$PATH

# The packages are a layer of their own, which a change in the labs does not touch: pip sees an empty labutils.
COPY --chown=student pyproject.toml constraints.txt LICENSE LICENSE-text ./
ARG PIP_EXTRA_INDEX_URL
RUN mkdir labutils student runs data \
    && touch labutils/__init__.py README.md \
    && python -m venv /venv \
    && pip install --no-cache-dir -c constraints.txt -e .

COPY --chown=student . .
EXPOSE 8888
CMD ["sh", "-c", "labs student && exec jupyter lab --ip=0.0.0.0 --no-browser --ServerApp.root_dir=/course/student"]
