"""Runs a program in a pseudo-terminal, to type into it and read its output."""

import os
import pty
import re
import select
import time

import harness


class Terminal:
    """A program in its own pseudo-terminal."""

    def __init__(self, *command, env=os.environ):
        self.seen = ""
        self.screen, line = pty.openpty()
        self.process = harness.launch([str(part) for part in command], stdin=line, stdout=line, stderr=line,
                                      env={**env, "TERM": "dumb"}, start_new_session=True)
        os.close(line)

    def until(self, text, budget_s=5):
        """Reads until the text has been shown; whether it was."""
        return self.until_match(re.escape(text), budget_s)

    def until_match(self, pattern, budget_s=5):
        """The same for a pattern."""
        end = time.monotonic() + budget_s
        while not re.search(pattern, self.seen) and time.monotonic() < end:
            if not self.read():
                break
        return bool(re.search(pattern, self.seen))

    def read(self, budget_s=0.1):
        """Reads what is there, or arrives in time; False if the program has gone."""
        if select.select([self.screen], [], [], budget_s)[0]:
            try:
                self.seen += os.read(self.screen, 65536).decode(errors="replace")
            except OSError:  # EIO
                return False
        return True

    def type(self, text):
        os.write(self.screen, text.encode())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.screen)
