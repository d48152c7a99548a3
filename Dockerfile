# docker build -t triplaneturbo . && docker run -p 7860:7860 triplaneturbo
# It also runs as a Docker space on Hugging Face, which wants user 1000 and port 7860.
FROM python:3.12-slim

RUN useradd --create-home --uid 1000 user
USER user
WORKDIR /home/user/app

COPY --chown=user requirements.txt .
RUN python -m venv /home/user/venv && /home/user/venv/bin/pip install --no-cache-dir -r requirements.txt
COPY --chown=user . .
RUN /home/user/venv/bin/python -m triplaneturbo.mesh.warm

EXPOSE 7860
CMD ["/home/user/venv/bin/python", "app.py", "--host", "0.0.0.0", "--port", "7860"]
