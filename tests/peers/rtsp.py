"""A camera that speaks RTSP: the server of GStreamer, in the system's own Python. (Debian: gir1.2-gst-rtsp-server-1.0,
gstreamer1.0-plugins-good) `python rtsp.py PORT USER PASSWORD` shows a ball that flies about, and asks for the password."""

from __future__ import annotations

import subprocess
import sys

PYTHON = "/usr/bin/python3"
PICTURES = "( videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width=160,height=120,framerate=10/1"
LAUNCH = PICTURES + " ! jpegenc ! rtpjpegpay name=pay0 pt=26 )"


def is_there() -> bool:
    """Its library and what the pictures are made with."""
    try:
        asked = [PYTHON, __file__]
        return subprocess.run(asked, capture_output=True, check=False, timeout=60).returncode == 0
    except OSError:
        return False


def camera(port: int, user: str, password: str) -> subprocess.Popen[bytes]:
    """The process; its pictures are at rtsp://USER:PASSWORD@127.0.0.1:PORT/yard."""
    return subprocess.Popen([PYTHON, __file__, str(port), user, password], stdin=subprocess.DEVNULL)


def main(arguments: list[str]) -> None:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtsp", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtsp, GstRtspServer

    Gst.init(None)
    if not all(Gst.ElementFactory.find(name) for name in ("videotestsrc", "jpegenc", "rtpjpegpay")):
        raise SystemExit("a plug-in is missing")
    if not arguments:
        return
    port, user, password = arguments
    server = GstRtspServer.RTSPServer(address="127.0.0.1", service=port)
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    factory = GstRtspServer.RTSPMediaFactory(launch=LAUNCH, shared=True)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("viewer", "media.factory.access", True)
    permissions.add_permission_for_role("viewer", "media.factory.construct", True)
    factory.set_permissions(permissions)
    factory.set_protocols(GstRtsp.RTSPLowerTrans.TCP)
    server.get_mount_points().add_factory("/yard", factory)
    server.attach(None)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main(sys.argv[1:])
