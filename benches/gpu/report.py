"""What a measurement came to: the machine, the promises, the tables."""

import argparse
import os
import platform
import shutil
import subprocess


def machine(options: argparse.Namespace) -> dict:
    """What the figures depend on."""
    version = subprocess.run([str(options.predictd), "--version"], capture_output=True, text=True, check=True).stdout.strip()
    gpu = None
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,power.limit", "--format=csv,noheader"]
        gpu = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip().splitlines()
    library = sorted(path.name for path in options.onnxruntime.glob("libonnxruntime.so*"))
    return {"predictd": version, "library": library, "gpu": gpu, "cores": os.cpu_count(), "python": platform.python_version(), "load_before": os.getloadavg()[0]}


def promises(everything: dict) -> list[dict]:
    """What was promised, and whether it is so; nothing where it was not measured."""
    found = []
    peers = {(case["tokens"], case["clients"]): case["texts_per_s"] for case in everything.get("fastapi", [])}
    for precision in ("fp32", "fp16"):
        one = everything.get(precision)
        if one is None:
            continue
        if one["parity"]:
            found.append({"what": f"{precision}: answers are those of the CPU", "holds": one["parity"]["holds"]})
        if one["one_client"]:
            found.append({"what": f"{precision}: HTTP and queue take at most 0.3 ms at one client", "holds": one["one_client"]["http_and_queue_ms"] <= 0.3})
        if one["bench"]:
            found.append({"what": f"{precision}: at least 0.9 of bare ONNX Runtime", "holds": one["bench"]["share"] >= 0.9})
        ratios = [case["texts_per_s"] / peers[case["tokens"], case["clients"]] for case in one["load"] if "batch" not in case and (case["tokens"], case["clients"]) in peers]
        if ratios and precision == "fp16":
            found.append({"what": "fp16: at least twice PyTorch behind FastAPI", "least": min(ratios), "holds": min(ratios) >= 2})
    return found


def cell(value: float | None, form: str) -> str:
    """A number, or nothing."""
    return "" if value is None else format(value, form)


def table(everything: dict) -> str:
    """All of it in Markdown."""
    machine = everything["machine"]
    lines = [f"## predictd on {everything['device']}", "", f"{machine['predictd']}, {', '.join(machine['library'])}, {', '.join(machine['gpu'] or ['no GPU'])}, {machine['cores']} cores.", ""]
    if everything["smoke"]:
        lines += ["**A smoke test: these figures mean nothing.**", ""]
    for precision in ("fp32", "fp16"):
        one = everything.get(precision)
        if one is None:
            continue
        parity, client = one["parity"], one["one_client"]
        lines += [f"### {precision}: {one['model']} on {one['facts']['device'] if one['facts'] else 'nothing'}", ""]
        if parity:
            lines += [f"{parity['same_labels']} of {parity['texts']} labels are those of the CPU, scores differ by {parity['largest_difference']:.1e} at most."]
        if client:
            lines += [f"One client: {client['total_ms']:.2f} ms, of which HTTP and queue {client['http_and_queue_ms']:.2f} ms."]
        lines.append("")
        if one["bench"]:
            lines += [f"Of bare ONNX Runtime ({one['bench']['limit_texts_per_s']:,.0f} texts/s) the server reaches {one['bench']['share']:.2f}.", ""]
        lines += ["| tokens | clients | texts a request | texts/s | p50 ms | p99 ms | GPU busy | W | of the ceiling | clients busy | failed |", "|---|---|---|---|---|---|---|---|---|---|---|"]
        for case in one["load"]:
            gpu = case["gpu"] or {}
            cells = [str(case["tokens"]), str(case["clients"]), str(case.get("batch", 1)), f"{case['texts_per_s']:,.0f}", f"{case['p50_ms']:.2f}", f"{case['p99_ms']:.2f}",
                     cell(gpu.get("utilisation_ratio"), ".0%"), cell(gpu.get("power_watts"), ".0f"), cell(case.get("of_ceiling"), ".2f"),
                     f"{case['generator_busy']:.0%} ({case['generator']})", str(case["failures"])]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
        if one["binding"]:
            lines += ["| texts | tokens | a run ms | bound | as a CUDA graph |", "|---|---|---|---|---|"]
            lines += [f"| {case['rows']} | {case['tokens']} | {case['host_ms']:.3f} | {case['bound_ms']:.3f} | {cell(case.get('graph_ms'), '.3f') or case.get('no_graph', '')} |"
                      for case in one["binding"]]
            lines.append("")
    torch = everything.get("torch")
    if torch:
        lines += [f"### PyTorch {torch['torch']}", "", "Matrix products: " + ", ".join(f"{name} {value:.1f} TFLOP/s" for name, value in torch["tflops"].items()) + ".", ""]
        lines += [f"Offline, sorted, {name} tokens: {found['texts_per_s']:,.0f} texts/s." for name, found in torch["offline"].items()] + [""]
    for case in everything.get("fastapi", []):
        lines.append(f"FastAPI, {case['tokens']} tokens, {case['clients']} clients: {case['texts_per_s']:,.0f} texts/s, p99 {case['p99_ms']:.1f} ms.")
    lines += ["", "| promise | |", "|---|---|", *(f"| {promise['what']} | {'yes' if promise['holds'] else 'NO'} |" for promise in everything["promises"]), ""]
    lines += [f"Not measured: {what}." for what in everything["skipped"]]
    return "\n".join(lines).rstrip() + "\n"
