#!/usr/bin/env python3
"""Writes AdmissionReview bodies (CREATE of a StatefulSet pod) of about 3, 64 and 250 KB.

usage: payloads.py OUT_DIR [--label K=V]... [--annotation K=V]... [--ns NAME]

Every target gets the same bytes: a pod of a plain `thanos store` StatefulSet, compact, as an
API server sends it, the same in every run. The vault annotations stay in it because the recorded
figures of that injector were measured with these bytes. --label/--annotation add an opt-in.
"""
import argparse, json, pathlib, random

SIZES = {"3k": 3_000, "64k": 64_000, "250k": 250_000}
UID = "705ab4f5-6393-11e8-b7cc-42010a800002"


def pod(labels, annotations, ns):
    mount = [{"name": "data", "mountPath": "/data"},
             {"name": "token", "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "thanos-store-3", "generateName": "thanos-store-", "namespace": ns,
            "labels": {"app.kubernetes.io/name": "thanos-store", "apps.kubernetes.io/pod-index": "3",
                       "controller-revision-hash": "thanos-store-6d4b7f9c5d",
                       "statefulset.kubernetes.io/pod-name": "thanos-store-3", **labels},
            "annotations": {"vault.hashicorp.com/agent-inject": "true", "vault.hashicorp.com/role": "demo", **annotations},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "thanos-store",
                                 "uid": "0f8a1c52-3f54-4a53-9b67-1a2b3c4d5e6f", "controller": True, "blockOwnerDeletion": True}]},
        "spec": {
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data-thanos-store-3"}},
                        {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}], "defaultMode": 420}}],
            "containers": [{
                "name": "thanos-store", "image": "thanos:v0.40.0",
                "args": ["store", "--log.level=info", "--data-dir=/data", "--grpc-address=0.0.0.0:10901",
                         "--http-address=0.0.0.0:10902", "--objstore.config-file=/etc/objstore.yml", "--index-cache-size=500MB"],
                "ports": [{"name": "grpc", "containerPort": 10901, "protocol": "TCP"}, {"name": "http", "containerPort": 10902, "protocol": "TCP"}],
                "env": [], "resources": {"requests": {"cpu": "500m", "memory": "2Gi"}, "limits": {"memory": "4Gi"}},
                "volumeMounts": mount,
                "readinessProbe": {"httpGet": {"path": "/-/ready", "port": 10902, "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 5, "successThreshold": 1, "failureThreshold": 20},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File", "imagePullPolicy": "IfNotPresent"}],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 120, "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "thanos-store", "serviceAccount": "thanos-store", "securityContext": {"fsGroup": 1001},
            "hostname": "thanos-store-3", "subdomain": "thanos-store", "schedulerName": "default-scheduler",
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
            "priority": 0, "enableServiceLinks": True, "preemptionPolicy": "PreemptLowerPriority"},
        "status": {}}


def review(obj, ns):
    gvk, gvr = {"group": "", "version": "v1", "kind": "Pod"}, {"group": "", "version": "v1", "resource": "pods"}
    return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {
        "uid": UID, "kind": gvk, "resource": gvr, "requestKind": gvk, "requestResource": gvr,
        "name": obj["metadata"]["name"], "namespace": ns, "operation": "CREATE",
        "userInfo": {"username": "system:serviceaccount:kube-system:statefulset-controller", "uid": "8c1e4a5e-1b2c-4d3e-9f00-112233445566",
                     "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"]},
        "object": obj, "oldObject": None, "dryRun": False, "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"}}}


def env_var(i, rnd):
    name = f"STORE_SETTING_{i:04d}"
    if i % 3 == 1:
        return {"name": name, "valueFrom": {"configMapKeyRef": {"name": "store-settings", "key": f"setting-{i:04d}", "optional": True}}}
    value = "".join(rnd.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(24))
    return {"name": name, "value": value if i % 3 else f'{{"path":"C:\\\\{value}","q":"é {i}"}}'}


def body(size, labels, annotations, ns):
    """Grow env until the size is met; env also shows up in managedFields and last-applied, as on a cluster."""
    rnd, envs, lo = random.Random(7), [], 0

    def build(n):
        p = pod(labels, annotations, ns)
        p["spec"]["containers"][0]["env"] = envs[:n]
        if n:
            fields = {".": {}, **{'k:{"name":"%s"}' % e["name"]: {".": {}, "f:name": {}, "f:value": {}} for e in envs[:n]}}
            p["metadata"]["managedFields"] = [{"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1",
                "time": "2026-11-20T10:00:00Z", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:spec": {"f:containers": {'k:{"name":"thanos-store"}': {".": {}, "f:env": fields}}}}}]
            p["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = json.dumps(
                {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "thanos-store", "env": envs[: n // 2]}]}}, separators=(",", ":"))
        return json.dumps(review(p, ns), separators=(",", ":"), ensure_ascii=False).encode()

    out = build(0)
    while len(out) < size:
        lo += 1 + (size - len(out)) // 400
        while len(envs) < lo:
            envs.append(env_var(len(envs), rnd))
        out = build(lo)
    return out, lo


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out", type=pathlib.Path)
    ap.add_argument("--label", action="append", default=[])
    ap.add_argument("--annotation", action="append", default=[])
    ap.add_argument("--ns", default="monitoring")
    a = ap.parse_args()
    kv = lambda items: dict(i.split("=", 1) for i in items)
    a.out.mkdir(parents=True, exist_ok=True)
    for name, size in SIZES.items():
        data, n = body(size, kv(a.label), kv(a.annotation), a.ns)
        (a.out / f"{name}.json").write_bytes(data)
        print(f"{name}.json {len(data)} bytes, {n} env vars")


if __name__ == "__main__":
    main()
