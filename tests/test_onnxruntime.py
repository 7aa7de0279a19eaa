"""Tests of deploy/onnxruntime.py: whatever goes wrong with a download, no wrong library is left.

pip is the real one; it finds fake wheels in a folder or on a server of this process. The
library of the checkout, target/onnxruntime, is never touched.
"""

import functools
import hashlib
import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
import threading
import unittest
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

SCRIPT = Path(__file__).resolve().parent.parent / "deploy" / "onnxruntime.py"
SPEC = importlib.util.spec_from_file_location("onnxruntime_installer", SCRIPT)
installer = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(installer)

BUILD = installer.BUILDS.get((platform.system(), platform.machine()))
LIBRARY = b"not the library" * 1000
LICENCES = {"LICENSE": b"not the licence", "ThirdPartyNotices.txt": b"no notices"}
INSTALLED = sorted([*LICENCES, *BUILD[1:2]]) if BUILD else []


def make_wheel(folder: Path, members: dict) -> Path:
    """A wheel that pip takes for onnxruntime of the pinned version."""
    tag = f"cp312-cp312-{BUILD[0]}"
    wheel = folder / f"onnxruntime-{installer.VERSION}-{tag}.whl"
    info = f"onnxruntime-{installer.VERSION}.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: onnxruntime\nVersion: {installer.VERSION}\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


class HalfServer(BaseHTTPRequestHandler):
    """Serves the half of a file; then waits or breaks off."""

    def do_GET(self):
        server = self.server
        if not self.path.endswith(".whl"):
            page = f'<a href="/{server.wheel.name}">{server.wheel.name}</a>'.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)
            return
        content = server.wheel.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.wfile.flush()
        server.half_sent.set()
        if server.waits:
            server.go_on.wait()

    def log_message(self, *_):
        pass


@unittest.skipIf(BUILD is None, "there is no pinned library for this machine")
class OnnxRuntimeTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        root = Path(folder.name)
        self.wheels, self.target, self.scratch = root / "wheels", root / "target", root / "scratch"
        for directory in (self.wheels, self.scratch):
            directory.mkdir()
        self.path = self.target / BUILD[1]

    def environment(self, links=None) -> dict:
        """An environment in which pip finds what lies under `links` and nothing else."""
        kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(("PIP_",)) and not name.lower().endswith("_proxy")}
        return kept | {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(links or self.wheels),
            "PIP_NO_CACHE_DIR": "1",
            "PIP_RETRIES": "0",
            "PIP_RESUME_RETRIES": "0",
            "TMPDIR": str(self.scratch),
        }

    def run_script(self, links=None) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, str(SCRIPT), "--directory", str(self.target)],
                              env=self.environment(links), capture_output=True, text=True)

    def install(self, run=functools.partial(subprocess.run, capture_output=True), licences=False) -> str:
        """The script's work in this process, with the digests of the fake files as the pinned ones."""
        pinned = (BUILD[0], BUILD[1], hashlib.sha256(LIBRARY).hexdigest())
        builds = {(platform.system(), platform.machine()): pinned}
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in LICENCES.items()}
        with mock.patch.object(installer, "BUILDS", builds), mock.patch.object(installer, "LICENCES", digests), \
                mock.patch.dict(os.environ, self.environment(), clear=True), \
                mock.patch.object(installer.subprocess, "run", run), mock.patch("builtins.print"):
            return installer.install(self.target, licences)

    def good_wheel(self, **others) -> Path:
        licences = {f"onnxruntime/{name}": content for name, content in (LICENCES | others).items()}
        return make_wheel(self.wheels, {f"onnxruntime/capi/{BUILD[1]}": LIBRARY} | licences)

    def left(self) -> list:
        return sorted(str(path.relative_to(self.target)) for path in self.target.rglob("*"))

    def serve_half(self, waits: bool) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", 0), HalfServer)
        server.daemon_threads = True
        # Large enough that half of it cannot lie in a buffer only.
        server.wheel = make_wheel(self.scratch, {f"onnxruntime/capi/{BUILD[1]}": os.urandom(4 << 20)})
        server.half_sent, server.go_on, server.waits = threading.Event(), threading.Event(), waits
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.addCleanup(server.go_on.set)
        return server

    def test_a_good_wheel_is_installed(self):
        self.good_wheel()
        self.assertEqual(self.install(), "")
        self.assertEqual(self.path.read_bytes(), LIBRARY)
        self.assertEqual(self.left(), INSTALLED)
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o755)
        for name, content in LICENCES.items():
            self.assertEqual((self.target / name).read_bytes(), content)

    def test_a_tampered_wheel_leaves_nothing_and_names_the_digest(self):
        self.good_wheel()
        run = self.run_script()
        self.assertNotEqual(run.returncode, 0)
        self.assertIn("SHA-256", run.stderr)
        self.assertIn(hashlib.sha256(LIBRARY).hexdigest(), run.stderr)
        self.assertNotIn("Traceback", run.stderr)
        self.assertEqual(self.left(), [])

    def test_a_wheel_without_the_library_leaves_nothing(self):
        make_wheel(self.wheels, {"onnxruntime/capi/other.so": LIBRARY})
        run = self.run_script()
        self.assertNotEqual(run.returncode, 0)
        self.assertIn(f"is not the wheel of onnxruntime {installer.VERSION}", run.stderr)
        self.assertNotIn("Traceback", run.stderr)
        self.assertEqual(self.left(), [])

    def test_a_damaged_wheel_leaves_nothing(self):
        wheel = self.good_wheel()
        content = bytearray(wheel.read_bytes())
        # Within the stored library, so that only its checksum tells.
        content[content.index(LIBRARY[:15]) + 500] ^= 0xFF
        wheel.write_bytes(content)
        run = self.run_script()
        self.assertNotEqual(run.returncode, 0)
        self.assertNotIn("Traceback", run.stderr)
        self.assertEqual(self.left(), [])

    def test_pip_failing_leaves_nothing(self):
        run = self.run_script()
        self.assertNotEqual(run.returncode, 0)
        self.assertIn("pip could not download", run.stderr)
        self.assertNotIn("Traceback", run.stderr)
        self.assertEqual(self.left(), [])

    def test_a_download_that_breaks_off_leaves_nothing(self):
        server = self.serve_half(waits=False)
        run = self.run_script(f"http://127.0.0.1:{server.server_address[1]}/")
        self.assertTrue(server.half_sent.is_set(), run.stderr)
        self.assertNotEqual(run.returncode, 0)
        self.assertEqual(self.left(), [])

    def test_a_download_killed_halfway_leaves_no_library(self):
        server = self.serve_half(waits=True)
        script = subprocess.Popen([sys.executable, str(SCRIPT), "--directory", str(self.target)], start_new_session=True,
                                  env=self.environment(f"http://127.0.0.1:{server.server_address[1]}/"), stderr=subprocess.DEVNULL)
        self.assertTrue(server.half_sent.wait(60), "pip asked for the wheel")
        # pip is in the session that was made for the two: both are gone without a chance to clean up.
        os.killpg(script.pid, 9)
        self.assertEqual(script.wait(), -9)
        self.assertEqual([name for name in self.left() if name.endswith(BUILD[1])], [])
        # What is left does not hinder the next run.
        self.good_wheel()
        self.assertEqual(self.install(), "")
        self.assertEqual(self.path.read_bytes(), LIBRARY)

    def test_what_a_killed_run_left_is_removed_later(self):
        old, young = (self.target / f"{installer.DRAFTS}{name}" for name in ("old", "young"))
        for folder in (old, young):
            folder.mkdir(parents=True)
            (folder / "half.whl").write_bytes(b"half")
        os.utime(old, (0, 0))
        self.good_wheel()
        self.assertEqual(self.install(), "")
        self.assertTrue(young.exists() and self.path.exists())
        self.assertFalse(old.exists())

    def test_the_right_library_is_kept_without_pip(self):
        self.target.mkdir()
        self.path.write_bytes(LIBRARY)
        before = self.path.stat()
        self.assertEqual(self.install(run=mock.Mock(side_effect=AssertionError("pip was called"))), "")
        after = self.path.stat()
        self.assertEqual((before.st_ino, before.st_mtime_ns), (after.st_ino, after.st_mtime_ns))
        self.assertEqual(self.left(), [BUILD[1]])

    def test_the_second_run_works_without_an_index(self):
        wheel = self.good_wheel()
        self.assertEqual(self.install(), "")
        wheel.unlink()
        self.assertEqual(self.install(), "")
        # The same set-up fails where a download is needed: it would have been noticed.
        self.path.unlink()
        self.assertIn("pip could not download", self.install())

    def test_a_damaged_library_is_replaced(self):
        self.good_wheel()
        self.target.mkdir()
        for damaged in (LIBRARY[:-1], b"", LIBRARY[:-1] + b"x"):
            self.path.write_bytes(damaged)
            self.assertEqual(self.install(), "")
            self.assertEqual(self.path.read_bytes(), LIBRARY)
            self.assertEqual(self.left(), INSTALLED)

    def test_licences_are_got_where_they_are_asked_for(self):
        self.good_wheel()
        self.target.mkdir()
        self.path.write_bytes(LIBRARY)
        self.assertEqual(self.install(licences=True), "")
        self.assertEqual(self.left(), INSTALLED)
        never = mock.Mock(side_effect=AssertionError("pip was called"))
        self.assertEqual(self.install(run=never, licences=True), "")
        (self.target / "LICENSE").write_bytes(b"another")
        self.assertEqual(self.install(licences=True), "")
        self.assertEqual((self.target / "LICENSE").read_bytes(), LICENCES["LICENSE"])

    def test_a_wheel_with_another_licence_leaves_nothing(self):
        self.good_wheel(LICENSE=b"another")
        self.assertIn("LICENSE in", self.install())
        self.assertEqual(self.left(), [])

    def test_a_machine_without_a_build_is_told_so(self):
        with mock.patch.object(installer, "BUILDS", {}):
            self.assertIn("--onnxruntime", installer.install(self.target))
        self.assertFalse(self.target.exists())


class Variants(unittest.TestCase):
    def test_the_one_for_cuda_is_pinned_too(self):
        with mock.patch.object(installer.platform, "system", return_value="Linux"), mock.patch.object(installer.platform, "machine", return_value="x86_64"):
            build = installer.chosen("cuda")
        self.assertEqual(build.requirement, f"onnxruntime-gpu=={installer.CUDA_VERSION}")
        # The one that the server looks for is put there last.
        self.assertEqual(list(build.libraries)[-1], f"libonnxruntime.so.{installer.CUDA_VERSION}")
        pinned = [*build.libraries.values(), *build.licences.values()]
        self.assertTrue(all(len(digest) == 64 and int(digest, 16) for digest in pinned) and len(set(pinned)) == 5)

    def test_there_is_none_for_other_machines(self):
        with mock.patch.object(installer.platform, "machine", return_value="aarch64"):
            self.assertIsNone(installer.chosen("cuda"))


if __name__ == "__main__":
    unittest.main()
