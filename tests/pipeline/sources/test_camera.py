"""The source camera: films made here, with what is to be seen known; ffmpeg's MJPEG, GStreamer's RTSP; a real process."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

cv2 = pytest.importorskip("cv2")
import numpy as np  # noqa: E402

from pipeline.component import SourceContext  # noqa: E402
from pipeline.frame import KeyTable  # noqa: E402
from pipeline.pictures import Picture, Pictures  # noqa: E402
from pipeline.quantity import Secret  # noqa: E402
from pipeline.sources.camera import Camera, CameraSettings  # noqa: E402
from pipeline.sources.camera.capture import Film  # noqa: E402
from pipeline.sources.camera.looking import Looking, jpeg  # noqa: E402
from tests.device import Device, free_port  # noqa: E402
from tests.peers import rtsp  # noqa: E402
from tests.waiting import eventually  # noqa: E402

RATE = 10  # pictures a second
HIGH, WIDE = 120, 160
MS = 1_000_000

PIPELINE = """
[pipeline]
name = "watch"
state = "state"
durability = "process"

[server]
listen = "127.0.0.1:{port}"

[sources.yard]
type = "camera"
url = "{url}"
every = "100 ms"
start = "2026-01-01T22:00:00Z"

[sources.posted]
type = "http"
fields = {{ value = "float" }}

[operators.intruder]
type = "alert"
input = "yard"
when = "motion > 0.01"
clear = "motion < 0.002"

[sinks.local]
type = "query_server"
inputs = ["yard", "intruder"]
retention = "1 d"

[sinks.evidence]
type = "snapshot"
inputs = ["intruder"]
retention = "10000 d"
"""


def wall() -> Any:
    """Bricks: something to see."""
    random = np.random.default_rng(1)
    coarse = random.integers(60, 200, (HIGH // 10, WIDE // 10), np.uint8)
    grey = cv2.resize(coarse, (WIDE, HIGH), interpolation=cv2.INTER_NEAREST)
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)


def pictures() -> list[Any]:
    """3 s of a wall, 2 s in which a white square crosses it, 2 s of the wall, 1 s with a hand before the lens."""
    shown = [wall() for _ in range(70)]
    for i in range(20):
        cv2.rectangle(shown[30 + i], (10 + 5 * i, 40), (40 + 5 * i, 80), (255, 255, 255), -1)
    return shown + [np.full((HIGH, WIDE, 3), 12, np.uint8) for _ in range(10)]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "yard.avi"
    out = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE, (WIDE, HIGH))
    for picture in pictures():
        out.write(picture)
    out.release()
    return path


# --- what is seen ---


def test_what_moves_is_found_with_its_box() -> None:
    looking = Looking()
    seen = [looking.see(picture) for picture in pictures()]
    assert [s.motion for s in seen[:30]] == [0.0] * 30
    for i in range(20):
        s = seen[30 + i]
        assert 0.03 < s.motion < 0.2
        assert s.box is not None
        x, y, w, h = s.box
        # It may trail behind what has moved on; the square itself is within.
        assert x <= (10 + 5 * i) / WIDE + 0.03
        assert x + w >= (40 + 5 * i) / WIDE - 0.03
        assert 40 / HIGH - 0.1 < y < 40 / HIGH + 0.05
        assert abs(y + h - 81 / HIGH) < 0.1
    assert [s.blocked for s in seen] == [False] * 70 + [True] * 10


def test_brightness_and_sharpness() -> None:
    sharp, dark, dim = wall(), wall() // 4, cv2.GaussianBlur(wall(), (31, 31), 0)
    clear = Looking().see(sharp)
    assert abs(clear.brightness - cv2.cvtColor(sharp, cv2.COLOR_BGR2GRAY).mean()) < 1
    assert Looking().see(dark).brightness < clear.brightness / 3
    assert Looking().see(dim).sharpness < clear.sharpness / 20


def test_noise_and_slow_light_are_no_motion() -> None:
    random = np.random.default_rng(2)
    looking = Looking()
    base = wall().astype(np.int16)
    for i in range(100):
        noisy = base + i // 10 + random.normal(0, 4, base.shape)
        assert looking.see(np.clip(noisy, 0, 255).astype(np.uint8)).motion == 0.0


def test_only_the_area_is_looked_at() -> None:
    """The square crosses the upper half of the lower three quarters; the box is in shares of the area."""
    above, below = Looking((0, 0, 1, 0.3)), Looking((0, 0.25, 1, 0.75))
    moved = [(above.see(p).motion, below.see(p).motion) for p in pictures()[:50]]
    assert max(m for m, _ in moved) == 0.0
    assert min(m for _, m in moved[31:]) > 0.02


def test_a_picture_that_is_kept_is_no_wider_than_asked() -> None:
    packed = cv2.imdecode(np.frombuffer(jpeg(wall(), 80, 80), np.uint8), cv2.IMREAD_COLOR)
    assert packed.shape == (60, 80, 3)


# --- films ---


def test_a_film_is_sampled_by_its_time(film: Path) -> None:
    taken = Film(str(film), 250 * MS)
    at = []
    while shot := taken.next():
        at.append(shot.at // MS)
    taken.close()
    assert at == [second + part for second in range(0, 8000, 1000) for part in (0, 300, 500, 800)]


@pytest.mark.parametrize("after", [0, 1, 29, 78, 79])
def test_a_film_goes_on_behind_a_picture(film: Path, after: int) -> None:
    whole, rest = Film(str(film), 100 * MS), Film(str(film), 100 * MS, after)
    expected = []
    while shot := whole.next():
        expected.append(shot.frame)
    found = []
    while shot := rest.next():
        found.append(shot.frame)
    assert expected == list(range(80))
    assert found == list(range(after + 1, 80))


def problems(**settings: Any) -> list[tuple[str, str]]:
    context = SourceContext("yard", KeyTable())
    Camera(CameraSettings(**({"url": Secret("film.avi")} | settings)), context)
    return context.problems


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"url": Secret("")}, "url"),
        ({"area": (0.5, 0.5, 0.6, 0.2)}, "area"),
        ({"area": (0.0, 0.0, 0.0, 0.2)}, "area"),
        ({"start": "yesterday"}, "start"),
        ({"url": Secret("/dev/video0"), "start": "2026-01-01T00:00:00Z"}, "start"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], setting: str) -> None:
    assert [place for place, _ in problems(**settings)] == [setting]


def test_right_settings() -> None:
    assert problems(area=(0.1, 0.1, 0.9, 0.9), start="2026-01-01T00:00:00Z") == []


# --- pictures in memory ---


def test_pictures_of_the_last_moments_only() -> None:
    held = Pictures()
    for second in range(60):
        held.put("a", Picture(second * 1000, b"x" * 10), 5_000)
    assert held.held == 60
    near = held.nearest("a", 57_400, 1_000)
    assert near is not None
    assert near.time == 57_000
    assert held.nearest("a", 10_000, 2_000) is None
    assert held.nearest("b", 57_000, 10**9) is None


def test_pictures_are_bounded_over_all_cameras() -> None:
    held = Pictures(largest=100)
    held.put("small", Picture(1, b"x" * 10), 10**9)
    for time in range(50):
        held.put("large", Picture(time, b"x" * 20), 10**9)
        assert held.held <= 100
    assert held.nearest("small", 1, 0) is not None
    newest = held.nearest("large", 10**6, 10**9)
    assert newest is not None
    assert newest.time == 49


# --- a real process ---


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def device_for(tmp_path: Path, url: str, *changes: tuple[str, str]) -> Device:
    port = free_port()
    text = PIPELINE.format(port=port, url=url)
    for before, after in changes:
        text = text.replace(before, after)
    (tmp_path / "pipeline.toml").write_text(text)
    return Device(tmp_path / "pipeline.toml", port)


async def until(device: Device, http: aiohttp.ClientSession, path: str, holds: Any) -> Any:
    told: Any = None

    async def look() -> bool:
        nonlocal told
        async with http.get(device.url + path) as answer:
            told = await answer.json()
        return bool(holds(told))

    await eventually(look, lambda: told)
    return told


async def test_an_alert_of_a_film_has_its_picture(tmp_path: Path, film: Path, http: aiohttp.ClientSession) -> None:
    async with device_for(tmp_path, str(film)) as device:
        await device.start(http)
        rows = await until(device, http, "/api/streams/yard/rows?limit=1000", lambda told: len(told["rows"]) == 80)
        assert [row["time"] for row in rows["rows"]][:2] == ["2026-01-01T22:00:00.000Z", "2026-01-01T22:00:00.100Z"]
        told = await until(device, http, "/api/snapshots", lambda told: told["snapshots"])
        first = told["snapshots"][-1]
        assert (first["alert"], first["key"], first["time"]) == ("intruder", "yard", "2026-01-01T22:00:03.000Z")
        async with http.get(device.url + first["url"]) as answer:
            assert answer.headers["Content-Type"] == "image/jpeg"
            picture = cv2.imdecode(np.frombuffer(await answer.read(), np.uint8), cv2.IMREAD_COLOR)
        assert picture[60, 25].min() > 240  # the square, where it comes in
        assert picture[60, 120].max() < 220
        for path in ("/api/snapshots/intruder/yard/1", "/api/snapshots/..%2F..%2Fstate/x/1", "/api/snapshots/a/b/c"):
            async with http.get(device.url + path) as answer:
                assert answer.status == 404
        async with http.get(device.url + "/api/snapshots?kez=1") as answer:
            assert answer.status == 400
        assert await device.end() == 0


async def test_killed_in_the_middle_of_a_film(tmp_path: Path, film: Path, http: aiohttp.ClientSession) -> None:
    """Every picture is one reading, whatever happens to the process."""
    async with device_for(tmp_path, str(film), ('every = "100 ms"', 'every = "100 ms"\narea = [0, 0, 1, 1]')) as device:
        for _ in range(3):
            await device.start(http)
            await asyncio.sleep(0.02)
            await device.end(signal.SIGKILL)
        await device.start(http)
        told = await until(device, http, "/api/streams/yard/rows?limit=1000", lambda told: len(told["rows"]) >= 80)
        times = [row["time"] for row in told["rows"]]
        assert times == sorted(set(times))
        assert len(times) == 80
        assert await device.end() == 0


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
async def test_a_camera_that_goes_away_and_comes_back(tmp_path: Path, film: Path, http: aiohttp.ClientSession) -> None:
    port = free_port()
    url = f"http://user:secret@127.0.0.1:{port}/yard.mjpeg?token=secret"

    def stream() -> subprocess.Popen[bytes]:
        source = ["-stream_loop", "-1", "-re", "-i", str(film), "-f", "mpjpeg", "-listen", "1"]
        command = ["ffmpeg", "-loglevel", "quiet", *source, f"http://127.0.0.1:{port}/yard.mjpeg"]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL)

    async with device_for(tmp_path, url, ('start = "2026-01-01T22:00:00Z"\n', "")) as device:
        await device.start(http)
        health = await until(device, http, "/health", lambda told: told["reasons"])
        assert f"http://127.0.0.1:{port}/yard.mjpeg: it cannot be opened" in health["reasons"][0]
        assert "secret" not in str(health)
        for _ in range(2):
            camera = stream()
            try:
                await until(device, http, "/health", lambda told: not told["reasons"])
                before = await until(device, http, "/api/streams", lambda told: told["streams"])
                await until(
                    device,
                    http,
                    "/api/streams",
                    lambda told, b=before: told["streams"][0]["rows"] > b["streams"][0]["rows"],
                )
            finally:
                camera.kill()
                camera.wait()
            await until(device, http, "/health", lambda told: told["reasons"])
        assert await device.end() == 0


async def test_a_camera_over_rtsp(tmp_path: Path, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its password it is seen, also when it comes back; with another /health says so, and shows neither."""
    if not rtsp.is_there():
        pytest.skip("needs GStreamer's RTSP server")
    port = free_port()
    url = f"rtsp://user:${{CAMERA_PASSWORD}}@127.0.0.1:{port}/yard"
    device = device_for(tmp_path, url, ('start = "2026-01-01T22:00:00Z"\n', ""))
    monkeypatch.setenv("CAMERA_PASSWORD", "wrong-secret")
    cameras = [rtsp.camera(port, "user", "right-secret")]
    try:
        async with device:
            await device.start(http)
            health = await until(device, http, "/health", lambda told: told["reasons"])
            assert f"rtsp://127.0.0.1:{port}/yard: it cannot be opened" in health["reasons"][0]
            assert "secret" not in str(health)
            await device.end(signal.SIGKILL)
            monkeypatch.setenv("CAMERA_PASSWORD", "right-secret")
            await device.start(http)
            told = await until(device, http, "/api/streams/yard/rows", lambda told: told["rows"])
            assert 0 < told["rows"][0]["brightness"] < 60  # a white ball before black
            cameras[0].kill()
            await until(device, http, "/health", lambda told: told["reasons"])
            cameras.append(rtsp.camera(port, "user", "right-secret"))
            await until(device, http, "/health", lambda told: not told["reasons"])
            assert await device.end() == 0
    finally:
        for camera in cameras:
            camera.kill()
            camera.wait()


def test_check_needs_no_picture(tmp_path: Path) -> None:
    device = device_for(tmp_path, "rtsp://user:secret@nowhere/", ('start = "2026-01-01T22:00:00Z"\n', ""))
    command = [sys.executable, "-m", "pipeline.command", "check", str(device.file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0
    assert "secret" not in done.stdout.replace("the secret stands", "")
