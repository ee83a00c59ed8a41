"""A small server on this machine in place of an API, and a tiny local judge."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from support.tiny import build_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM


class Server:
    """An OpenAI-compatible server: pops the next reply, and remembers what it was sent."""

    def __init__(self):
        self.replies = []
        self.requests = []
        self.keys = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                length = int(self.headers["content-length"])
                outer.requests.append(json.loads(self.rfile.read(length)))
                outer.keys.append(self.headers.get("authorization"))
                status, content = outer.replies.pop(0) if outer.replies else (200, "1.0")
                body = content.encode()
                if status == 200:
                    message = {"choices": [{"message": {"content": content}}], "model": "gpt-x-1"}
                    body = json.dumps(message).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.send_header("location", "http://127.0.0.1:1/v1")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def close(self):
        self.http.shutdown()
        self.thread.join(timeout=10)
        self.http.server_close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    running = Server()
    yield running
    running.close()


@pytest.fixture(scope="session")
def language_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge")
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048,
        initializer_range=0.3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
