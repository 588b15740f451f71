#!/bin/sh
# Installs a bundle where there is no network, and starts it:
#     sh install.sh BUNDLE.edgecl KEY.pub
# Take this file from where you have the key from: one out of a bundle has not been checked before it runs.
# It needs python3 with venv, openssl 3 and, to start services, root. From the environment: ROOT, the folder that holds the
# slots (/opt/edgecl); DESTDIR, put before every path (then nothing is started); PYTHON (python3).
set -eu
[ $# -eq 2 ] || { echo "usage: sh install.sh BUNDLE.edgecl KEY.pub" >&2; exit 2; }
bundle=$1 key=$2 root=${ROOT:-/opt/edgecl} dest=${DESTDIR:-} python=${PYTHON:-python3}
case $root in /*) ;; *) echo "install.sh: ROOT has to begin with /" >&2; exit 2 ;; esac
umask 022  # the services' user has to read what root installs
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The signature first, by openssl; then each wheel is held to the manifest. No program of the bundle has run yet.
"$python" -I - "$bundle" "$key" "$work" <<'PY'
import hashlib, json, os, re, subprocess, sys, tarfile

bundle, key, work = sys.argv[1:]


def say(why):
    sys.exit(f"install.sh: {bundle}: {why}")


try:
    tar = tarfile.open(bundle, "r|")
    head = []
    for name, limit in (("manifest.json", 1 << 20), ("manifest.sig", 154)):
        member = tar.next()
        if member is None or member.name != name or not member.isreg() or member.size > limit:
            say("is no bundle")
        head.append(tar.extractfile(member).read())
    signature = re.fullmatch(rb"ed25519 [0-9a-f]{16} ([0-9a-f]{128})\n", head[1])
    if not signature:
        say("has no Ed25519 signature")
    for name, data in (("manifest", head[0]), ("signature", bytes.fromhex(signature[1].decode()))):
        with open(os.path.join(work, name), "wb") as file:
            file.write(data)
    check = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", key]
    check += ["-in", work + "/manifest", "-sigfile", work + "/signature"]
    if subprocess.run(check, stdout=subprocess.DEVNULL).returncode:
        say(f"is damaged, or was not signed by {key}")
    entries = json.loads(head[0])["files"]
    os.mkdir(os.path.join(work, "wheels"))
    for member in tar:
        match = re.fullmatch(r"wheels/([A-Za-z0-9_+!][A-Za-z0-9._+!-]*\.whl)", member.name)
        if not match:
            continue
        entry = entries.get(member.name)
        if entry is None or not member.isreg() or member.size != entry["bytes"]:
            say(f"{member.name} is not the one of the manifest")
        digest = hashlib.sha256()
        with open(os.path.join(work, "wheels", match[1]), "wb") as file:
            source = tar.extractfile(member)
            while piece := source.read(1 << 20):
                digest.update(piece)
                file.write(piece)
        if digest.hexdigest() != entry["sha256"]:
            say(f"{member.name} is damaged")
except (OSError, tarfile.TarError, ValueError, KeyError) as e:
    say(" ".join(str(e).split()) or type(e).__name__)
if not os.listdir(os.path.join(work, "wheels")):
    say("holds no wheels; make it with edgecl bundle create --wheels DIR")
PY

# The bundle's own edgecl, for this time only: it checks everything once more, and fills and tests a slot.
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -I -m pip install -q --disable-pip-version-check --no-cache-dir --no-index \
  --find-links "$work/wheels" "$work"/wheels/*.whl
mkdir -p "$dest$root"
"$work/venv/bin/python" -I -m edgecl bundle install "$bundle" --root "$dest$root" --pub "$key" --venv

units=$dest/etc/systemd/system
mkdir -p "$units"
started=
for unit in edgecl-run.service edgecl-learn.service edgecl-sync.service; do
  if [ -f "$dest$root/current/$unit" ]; then
    sed "s#/opt/edgecl#$root#g" "$dest$root/current/$unit" >"$units/.$unit.tmp"
    mv "$units/.$unit.tmp" "$units/$unit"
    started="$started $unit"
  fi
done
[ -z "$dest" ] || { echo "placed under $dest; nothing was started"; exit 0; }
id edgecl >/dev/null 2>&1 || useradd --system --no-create-home --home-dir /var/lib/edgecl --shell /usr/sbin/nologin edgecl
systemctl daemon-reload
for unit in $started; do
  systemctl enable "$unit"
  systemctl restart --no-block "$unit"  # a start ends after its half minute of trial
done
echo "started:$started"
