"""Tests of what `make dist` does: without a release build. tests/system/dist/check.py looks at a real archive."""

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "deploy"))

import build  # noqa: E402
import dist  # noqa: E402
import licences  # noqa: E402
import onnxruntime  # noqa: E402
import sbom  # noqa: E402

UNIT = ROOT / "deploy/systemd/predictd.service"


def packages(*options: str) -> set[str]:
    """Names and versions of what `cargo tree` lists."""
    command = ["cargo", "tree", "--locked", "--target", sbom.TARGET, "--prefix", "none", *options]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    # A crate of this repository has its directory behind its version.
    found = re.findall(r"^(\S+) v(\S+)( \(/)?", listed, re.M)
    return {f"{'predictd' if folder else 'pkg:cargo'}/{name}@{version}" for name, version, folder in found if name != "predictd"}


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def file(self, name: str, content: bytes = b"x", mode: int = 0o644) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
        return path


class Archive(Folder):
    def tree(self, name: str, backwards: bool, mask: int) -> Path:
        files = [("b", b"2", 0o644), ("a/program", b"1", 0o755), ("a/c/deep", b"3" * 99, 0o644)]
        for file, content, mode in reversed(files) if backwards else files:
            path = self.file(f"{name}/top/{file}", content, mode & ~mask)
            os.utime(path, (mask, mask))
        return self.folder / name / "top"

    def test_the_same_files_are_the_same_bytes(self):
        first, second = self.folder / "first.tar.gz", self.folder / "other-name.tar.gz"
        dist.archive(self.tree("one", False, 0), first, 1_700_000_000)
        # Made in another order, at another time, by someone with another umask.
        dist.archive(self.tree("two", True, 0o027), second, 1_700_000_000)
        self.assertEqual(first.read_bytes(), second.read_bytes())
        with tarfile.open(first) as tar:
            entries = {entry.name: entry for entry in tar}
        self.assertEqual(list(entries), sorted(entries))
        self.assertEqual({(e.uid, e.gid, e.uname, e.mtime) for e in entries.values()}, {(0, 0, "root", 1_700_000_000)})
        self.assertEqual((entries["top/a/program"].mode, entries["top/b"].mode, entries["top/a"].mode), (0o755, 0o644, 0o755))

    def test_other_files_or_another_time_are_other_bytes(self):
        tree = self.tree("one", False, 0)
        made = []
        for epoch, content in ((1, b"2"), (2, b"2"), (1, b"3")):
            (tree / "b").write_bytes(content)
            dist.archive(tree, self.folder / "x", epoch)
            made.append((self.folder / "x").read_bytes())
        self.assertEqual(len(set(made)), 3)
        # No time in gzip's own head.
        self.assertEqual({archive[4:8] for archive in made}, {b"\0\0\0\0"})
        self.assertTrue(gzip.decompress(made[0]))

    @unittest.skipIf(shutil.which("sha256sum") is None, "there is no sha256sum")
    def test_checksums_are_of_all_files_and_notice_a_change(self):
        tree = self.tree("one", False, 0)
        dist.write_sums(tree)
        check = ["sha256sum", "--check", "--strict", "--quiet", dist.SUMS]
        self.assertEqual(len((tree / dist.SUMS).read_text().splitlines()), 3)
        self.assertEqual(subprocess.run(check, cwd=tree).returncode, 0)
        (tree / "b").write_bytes(b"4")
        self.assertNotEqual(subprocess.run(check, cwd=tree, capture_output=True).returncode, 0)

    def test_the_time_is_that_of_the_sources(self):
        with mock.patch.dict(os.environ, {"SOURCE_DATE_EPOCH": "17"}):
            self.assertEqual(dist.time_of_sources(), 17)
        with mock.patch.dict(os.environ, {"SOURCE_DATE_EPOCH": "yesterday"}), self.assertRaisesRegex(dist.Refused, "SOURCE_DATE_EPOCH"):
            dist.time_of_sources()
        kept = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
        with mock.patch.dict(os.environ, kept, clear=True), mock.patch.object(dist, "ROOT", self.folder), \
                self.assertRaisesRegex(dist.Refused, "no clone"):
            dist.time_of_sources()


class Refusals(Folder):
    """Nothing is packed that is not what it should be."""

    def runtime(self) -> Path:
        """A directory of ONNX Runtime with made-up files, whose digests are the pinned ones."""
        names = {"lib.so.1": b"library", **{name: name.encode() for name in onnxruntime.LICENCES}}
        digests = {name: hashlib.sha256(self.file(f"runtime/{name}", content).read_bytes()).hexdigest() for name, content in names.items()}
        library = digests.pop("lib.so.1")
        key = (dist.platform.system(), dist.platform.machine())
        for patch in (mock.patch.object(onnxruntime, "BUILDS", {key: ("any", "lib.so.1", library)}), mock.patch.object(onnxruntime, "LICENCES", digests)):
            patch.start()
            self.addCleanup(patch.stop)
        return self.folder / "runtime"

    def test_the_library_is_the_pinned_one(self):
        source, target = self.runtime(), self.folder / "tree"
        self.assertEqual(dist.put_runtime(source, target), target / "lib/lib.so.1")
        self.assertTrue((target / "licences/onnxruntime/LICENSE").is_file())
        for name in ("lib.so.1", "LICENSE"):
            right = (source / name).read_bytes()
            (source / name).write_bytes(right + b" tampered")
            with self.assertRaisesRegex(dist.Refused, f"{name} is not the pinned file: its SHA-256 is"):
                dist.put_runtime(source, target)
            (source / name).unlink()
            with self.assertRaisesRegex(dist.Refused, f"{name} is missing: run deploy/onnxruntime.py --licences"):
                dist.put_runtime(source, target)
            (source / name).write_bytes(right)

    def test_a_platform_without_a_pinned_library(self):
        with mock.patch.object(onnxruntime, "BUILDS", {}), self.assertRaisesRegex(dist.Refused, "no ONNX Runtime library is pinned"):
            dist.put_runtime(self.folder, self.folder)

    def test_models_are_those_of_their_manifests(self):
        shutil.copytree(ROOT / "models/banking77-tfidf", self.folder / "models/banking77-tfidf")
        one = {"banking77-tfidf": sbom.MODELS["banking77-tfidf"]}
        with mock.patch.object(sbom, "MODELS", one):
            self.file("models/banking77-tfidf/1/stray.onnx")
            dist.put_models(self.folder / "models", self.folder / "tree")
            self.assertEqual({path.name for path in (self.folder / "tree/banking77-tfidf/1").iterdir()},
                             {path.name for path in (ROOT / "models/banking77-tfidf/1").iterdir()})
            self.file("models/banking77-tfidf/1/golden.json", b"{}")
            with self.assertRaisesRegex(dist.Refused, "golden.json is not the pinned file"):
                dist.put_models(self.folder / "models", self.folder / "tree")

    def test_all_shipped_models_are_listed(self):
        self.assertEqual(set(sbom.MODELS), {path.parent.parent.name for path in (ROOT / "models").glob("*/*/model.toml")})

    def test_what_lies_in_the_checkout_is_there(self):
        with self.assertRaisesRegex(dist.Refused, "nowhere.* is missing"):
            dist.put_contents(ROOT, self.folder / "tree", [("LICENSE", "."), ("deploy/nowhere/*", "x")])
        dist.put_contents(ROOT, self.folder / "tree")
        for name in ("LICENSE", "nginx.conf", "deploy/systemd/predictd.service", "deploy/prometheus/alerts.yml"):
            self.assertTrue((self.folder / "tree" / name).is_file(), name)

    @unittest.skipIf(shutil.which("readelf") is None, "there are no binutils")
    def test_the_binary_is_one_with_its_dependencies_inside(self):
        target = self.folder / "out"
        with self.assertRaisesRegex(dist.Refused, "missing: run deploy/build.py"):
            dist.put_binary(self.folder / "none", target)
        with self.assertRaisesRegex(dist.Refused, "`strip` failed"):
            dist.put_binary(self.file("text", b"no program"), target)
        with self.assertRaisesRegex(dist.Refused, "no list of its dependencies"):
            dist.put_binary(Path("/bin/true"), target)

    def test_the_command_says_what_is_wrong_and_leaves_nothing(self):
        command = [sys.executable, str(ROOT / "deploy/dist.py"), "--binary", str(self.folder / "none"), "--output", str(self.folder / "dist")]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"SOURCE_DATE_EPOCH": "1"})
        self.assertEqual((done.returncode, done.stderr), (1, f"dist.py: {self.folder}/none is missing: run deploy/build.py\n"))
        self.assertEqual(list((self.folder / "dist").iterdir()), [])


class Parts(unittest.TestCase):
    """The list of parts, of the real Cargo.lock."""

    @classmethod
    def setUpClass(cls):
        cls.made = sbom.document(1_700_000_000, None, None, ROOT / "models")
        cls.of = {made["bom-ref"]: made for made in cls.made["components"]}
        cls.crates = {ref: made for ref, made in cls.of.items() if ref.startswith(("pkg:cargo/", "predictd/")) and "#" not in ref}

    def test_every_crate_that_is_linked_is_in_it_and_no_other(self):
        linked = packages("--edges", "normal,no-proc-macro")
        self.assertEqual({ref for ref, made in self.crates.items() if made["scope"] == "required"}, linked)
        self.assertEqual(set(self.crates), packages("--edges", "normal,build"))
        # Tests and benchmarks bring some that are not in it; so does sqlx, for a database that is not built.
        for absent in ("criterion", "proptest", "rcgen", "sqlx-mysql"):
            self.assertFalse([ref for ref in self.crates if ref.startswith(f"pkg:cargo/{absent}@")], absent)
        self.assertGreater(len(linked), 200)

    def test_each_has_a_checksum_a_licence_and_its_dependencies(self):
        for ref, made in self.crates.items():
            self.assertNotIn("/", made["licenses"][0]["expression"], ref)
            if ref.startswith("pkg:cargo/"):
                self.assertEqual(made["purl"], ref)
                self.assertRegex(made["hashes"][0]["content"], "^[0-9a-f]{64}$", ref)
        uses = {entry["ref"]: entry["dependsOn"] for entry in self.made["dependencies"]}
        self.assertEqual(set(uses), set(self.of) | {"predictd@" + self.made["metadata"]["component"]["version"]})
        self.assertLessEqual({ref for others in uses.values() for ref in others}, set(self.of))
        # Everything is there because something uses it.
        reached, todo = set(), [next(ref for ref in uses if ref.startswith("predictd@"))]
        while todo:
            if (ref := todo.pop()) not in reached:
                reached.add(ref)
                todo.extend(uses[ref])
        self.assertEqual(reached, set(uses))

    def test_a_crate_of_the_repository_is_not_the_one_of_a_registry(self):
        own = {ref: made for ref, made in self.crates.items() if ref.startswith("predictd/")}
        self.assertEqual({made["name"] for made in own.values()}, {re.search('^name = "(.+)"', path.read_text(), re.M)[1] for path in ROOT.glob("crates/*/Cargo.toml")})
        for ref, made in own.items():
            self.assertEqual(made["licenses"], [{"expression": "Apache-2.0"}], ref)
            # A scanner would look for advisories about the other one.
            self.assertFalse({"purl", "hashes"} & set(made), ref)
            self.assertNotIn(f"  {made['name']} {made['version']}:", licences.text(ROOT))

    def test_what_no_crate_is_has_a_version(self):
        versions = {made["name"]: made.get("version") for made in self.of.values()}
        self.assertRegex(versions["oniguruma"], r"^6\.9\.\d+$")
        self.assertRegex(versions["sqlite"], r"^3\.\d+\.\d+$")
        self.assertRegex(versions["mimalloc"], r"^3\.\d+\.\d+$")
        self.assertEqual(versions["onnxruntime"], onnxruntime.VERSION)
        self.assertIn("boringssl", versions)
        for name in sbom.MODELS:
            (made,) = (made for made in self.of.values() if made["name"] == name)
            self.assertEqual(made["type"], "machine-learning-model")
            self.assertEqual(made["hashes"][0]["content"], onnxruntime.digest(ROOT / "models" / name / "1/model.onnx"))

    def test_the_same_sources_are_the_same_list(self):
        again = sbom.document(1_700_000_000, None, None, ROOT / "models")
        self.assertEqual(sbom.text(again), sbom.text(self.made))
        later = sbom.document(1_700_000_001, None, None, ROOT / "models")
        self.assertNotEqual(later["serialNumber"], again["serialNumber"])
        self.assertEqual(later["metadata"]["timestamp"], "2023-11-14T22:13:21Z")

    def test_c_code_that_nobody_named_is_noticed(self):
        for crate in sbom.C_CODE:
            with mock.patch.dict(sbom.C_CODE), self.assertRaisesRegex(sbom.Incomplete, f"{crate} compiles C code"):
                del sbom.C_CODE[crate]
                sbom.document(1, None, None, ROOT / "models")

    def test_every_crate_has_a_licence_text(self):
        text = licences.text(ROOT)
        for crate in sbom.tree("normal,no-proc-macro"):
            if not sbom.is_own(crate):
                # Once in the list, and once above a text.
                self.assertGreater(len(re.findall(rf"(?m)^(.*, )?(  )?{re.escape(' '.join(crate))}\b", text)), 1, crate)
        self.assertIn("Copyright (c) 2002-2021  K.Kosako", text)

    def test_a_crate_without_a_text_needs_a_licence_that_is_known(self):
        package = {"name": "x", "version": "1", "license": "MIT", "authors": ["A. Person <a@example.com>"]}
        self.assertIn("Copyright (c) A. Person\n", licences.instead(package, "apache"))
        self.assertEqual(licences.instead(package | {"license": "MIT OR Apache-2.0"}, "apache"), "apache")
        for unknown in ({"license": "MPL-2.0"}, {"authors": []}):
            with self.assertRaisesRegex(sbom.Incomplete, "x 1 brings no text"):
                licences.instead(package | unknown, "apache")


class Build(unittest.TestCase):
    def test_no_path_of_this_machine_is_left_to_compilers(self):
        paths = build.replaced_paths(ROOT / "target/some where")
        self.assertEqual(list(paths.values())[-2:], ["/predictd", "/target"])
        self.assertIn(str(ROOT), paths)
        with mock.patch.dict(os.environ, {"RUSTFLAGS": "-C target-cpu=native", "CFLAGS": "-O0", "SOURCE_DATE_EPOCH": "17"}):
            variables = build.environment(paths)
        self.assertNotIn("RUSTFLAGS", variables)
        self.assertIn(f"--remap-path-prefix={ROOT}=/predictd\x1f", variables["CARGO_ENCODED_RUSTFLAGS"])
        self.assertIn(f"'-ffile-prefix-map={ROOT}/target/some where=/target'", variables["CFLAGS"])
        self.assertNotIn("-O0", variables["CFLAGS"])
        self.assertEqual(variables["SOURCE_DATE_EPOCH"], "0")


def seconds(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(s|min)", text).groups()
    return int(number) * {"s": 1, "min": 60}[unit]


class Unit(Folder):
    text = UNIT.read_text()

    def value(self, name: str) -> str:
        (value,) = re.findall(rf"^{name}=(.*)$", self.text, re.M)
        return value

    def test_stopping_has_the_time_that_the_server_takes(self):
        variables = dict(re.findall(r"(PREDICTD_\w+)=(\S+)", self.text))
        takes = seconds(variables["PREDICTD_DRAIN_DELAY"]) + seconds(variables["PREDICTD_DRAIN_TIMEOUT"])
        self.assertGreaterEqual(seconds(self.value("TimeoutStopSec")), takes + 5)
        self.assertEqual((self.value("KillSignal"), self.value("Restart"), self.value("RestartPreventExitStatus")), ("SIGTERM", "on-failure", "64"))
        # It tells systemd nothing: neither would ever come.
        self.assertEqual(self.value("Type"), "exec")
        self.assertNotIn("WatchdogSec", self.text)
        self.assertNotIn("sd_notify", "".join(path.read_text() for folder in ("src", "crates") for path in (ROOT / folder).rglob("*.rs")))

    def test_its_variables_are_options(self):
        known = set(re.findall(r'env = "(\w+)"', "".join(path.read_text() for path in (ROOT / "src/config").rglob("*.rs"))))
        for file in (UNIT, UNIT.with_name("credentials.conf")):
            for name in re.findall(r"(?<![\w])(PREDICTD_[A-Z_]+)=", file.read_text()):
                self.assertIn(name, known, file.name)

    def analyze(self, *command: str, unit: str, credentials: str = "") -> subprocess.CompletedProcess:
        # What is started has to be there.
        self.file("predictd.service", unit.replace("/opt/predictd/predictd", "/bin/true").encode())
        if credentials:
            self.file("predictd.service.d/credentials.conf", credentials.encode())
        environment = os.environ | {"SYSTEMD_UNIT_PATH": f"{self.folder}:"}
        return subprocess.run(["systemd-analyze", *command, str(self.folder / "predictd.service")], env=environment, capture_output=True, text=True)

    @unittest.skipIf(shutil.which("systemd-analyze") is None, "there is no systemd")
    def test_systemd_understands_every_line(self):
        credentials = UNIT.with_name("credentials.conf").read_text()
        done = self.analyze("verify", "--man=no", unit=self.text, credentials=credentials)
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))
        for unit, secrets in ((self.text.replace("ProtectHome=yes", "ProtectHome=perhaps"), credentials), (self.text, credentials + "LoadCredentials=x\n")):
            self.assertNotEqual(self.analyze("verify", "--man=no", unit=unit, credentials=secrets).stderr, "")

    @unittest.skipIf(shutil.which("systemd-analyze") is None, "there is no systemd")
    def test_it_is_exposed_no_more_than_a_server_must_be(self):
        def ends(unit: str, threshold: int) -> int:
            return self.analyze("security", "--offline=true", f"--threshold={threshold}", "--no-pager", unit=unit).returncode
        # 1.3 of 10 when written: what is left is a network, and the system's own files to read.
        self.assertEqual(ends(self.text, 15), 0)
        self.assertNotEqual(ends(self.text.replace("CapabilityBoundingSet=\n", ""), 15), 0)


if __name__ == "__main__":
    unittest.main()
