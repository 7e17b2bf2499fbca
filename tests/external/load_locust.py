"""Clients for locust, started by `load.py`: each sends, waits for the answer, and sends the next."""

import time

import websocket
from locust import User, constant, task


class Echo(User):
    wait_time = constant(0)

    def on_start(self):
        self.peer = websocket.create_connection(self.host)

    @task
    def echo(self):
        since = time.perf_counter()
        self.peer.send("hello")
        answer = self.peer.recv()
        self.environment.events.request.fire(
            request_type="WS", name="echo", response_time=(time.perf_counter() - since) * 1000,
            response_length=len(answer), exception=None, context={})
