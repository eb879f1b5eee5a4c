"""wrk, a peer we did not write, as fast as it can: of what it asks, only what it may ask reaches the app."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import trio

from agent.base.address import TcpAddress
from tests.scenarios.http_front import allow, deny, front

pytestmark = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")

CONNECTIONS = 16
SCRIPT = """
local asked = 0
request = function()
  asked = asked + 1
  return wrk.format("GET", asked % 2 == 0 and "/admin/x" or "/x")
end
done = function(summary)
  local errors = summary.errors
  local broken = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("answers %d refused %d broken %d\\n", summary.requests, errors.status, broken))
end
"""


async def test_every_second_request_is_refused_and_no_connection_breaks(tmp_path: Path) -> None:
    script = tmp_path / "mixed.lua"
    script.write_text(SCRIPT)
    async with front(deny(PathPrefix="/admin"), allow(PathPrefix="/")) as f:
        assert isinstance(f.mesh.upstream, TcpAddress)
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", "-d1s", "-s", str(script), f"http://{f.mesh.upstream}"]
        said = (await trio.run_process(command, capture_stdout=True)).stdout.decode()
        found = re.search(r"answers (\d+) refused (\d+) broken (\d+)", said)
        assert found, said
        answers, refused, broken = map(int, found.groups())
        assert (broken, {request.target for request in f.app.reached}) == (0, {"/x"})
        assert refused > CONNECTIONS
        assert abs(answers - 2 * refused) <= CONNECTIONS
        assert 0 <= len(f.app.reached) - (answers - refused) <= CONNECTIONS, "those under way at the end"
        assert f.app.connections <= CONNECTIONS
        requests = f.mesh.db.ledger.requests()
        assert requests.keys() == {"permission_allow", "permission_deny"}
        assert requests["permission_deny"] >= refused
