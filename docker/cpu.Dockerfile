# Image of the nodes without GPUs. The tag is Ray's version:
#   docker build -f docker/cpu.Dockerfile -t REGISTRY/vgs-ray:2.60.0-cpu .
FROM rayproject/ray:2.60.0-py311-cpu

RUN mkdir /home/ray/vgs_ray
WORKDIR /home/ray/vgs_ray

# Dependencies first, so that a change of the code does not install them again. setup.sh says why three are removed.
COPY --chown=ray pyproject.toml README.md LICENSE constraints.txt ./
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu -c constraints.txt '.[cpu,svpo]' \
    && pip uninstall -y torchvision torchaudio torchcodec

COPY --chown=ray vgs_ray vgs_ray
COPY --chown=ray pipelines pipelines
RUN pip install --no-cache-dir --no-deps --force-reinstall .
