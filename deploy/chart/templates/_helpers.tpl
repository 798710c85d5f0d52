{{/* Name of every object, or its beginning. Not the release's name: the label on namespaces means one webhook, so Helm must refuse a second release. */}}
{{- define "timeshard.fullname" -}}
{{- .Values.fullnameOverride | default .Values.nameOverride | default "timeshard" | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "timeshard.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace }}
{{- end }}

{{/* On every object. Never app.kubernetes.io/managed-by, which Helm adds: on a ConfigMap, thanos-timeshard there means published windows. */}}
{{- define "timeshard.labels" -}}
{{- include "timeshard.labelsWith" (list .) }}
{{- end }}

{{/* The same with more of them: (list . first second). Of equal keys the last one counts: some tools refuse a key that occurs twice. */}}
{{- define "timeshard.labelsWith" -}}
{{- $root := first . }}
{{- $all := dict "app.kubernetes.io/name" "thanos-timeshard" "app.kubernetes.io/instance" $root.Release.Name }}
{{- $_ := set $all "app.kubernetes.io/version" $root.Chart.AppVersion }}
{{- $_ := set $all "app.kubernetes.io/part-of" "thanos-timeshard" }}
{{- $_ := set $all "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_") }}
{{- range concat (list $root.Values.commonLabels) (rest .) }}
{{- $all = mergeOverwrite $all (. | default dict) }}
{{- end }}
{{- toYaml $all }}
{{- end }}

{{/* The annotations of an object, as a part of its metadata: (list . first second). Of equal keys the last one counts. */}}
{{- define "timeshard.annotations" -}}
{{- $all := dict }}
{{- range concat (list (first .).Values.commonAnnotations) (rest .) }}
{{- $all = mergeOverwrite $all (. | default dict) }}
{{- end }}
{{- with $all }}
  annotations: {{- toYaml . | nindent 4 }}
{{- end }}
{{- end }}

{{/* The server's pods; `timeshard status` selects by these. They never change: a Deployment's selector cannot. */}}
{{- define "timeshard.selector" -}}
app.kubernetes.io/name: thanos-timeshard
app.kubernetes.io/component: server
{{- end }}

{{- define "timeshard.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "timeshard.fullname" .) }}
{{- else if .Values.serviceAccount.name }}
{{- .Values.serviceAccount.name }}
{{- else }}
{{- fail "serviceAccount.create is false, so the ServiceAccount is yours: name it in serviceAccount.name, never `default`, since it gets the server's rights" }}
{{- end }}
{{- end }}

{{/* A registry replaces the one in the repository: the first part, if it has a dot, a colon or is localhost. */}}
{{- define "timeshard.repository" -}}
{{- $registry := .Values.image.registry | default (.Values.global).imageRegistry }}
{{- if $registry }}
{{- $parts := splitList "/" .Values.image.repository }}
{{- if and (gt (len $parts) 1) (regexMatch "[.:]|^localhost$" (first $parts)) }}
{{- $parts = rest $parts }}
{{- end }}
{{- printf "%s/%s" (trimSuffix "/" $registry) (join "/" $parts) }}
{{- else }}
{{- .Values.image.repository }}
{{- end }}
{{- end }}

{{- define "timeshard.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{- include "timeshard.repository" . }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ $tag }}{{ end }}
{{- end }}

{{- define "timeshard.imagePullSecrets" -}}
{{- with concat ((.Values.global).imagePullSecrets | default list) .Values.imagePullSecrets | uniq }}
imagePullSecrets:
{{- range . }}
- name: {{ if kindIs "string" . }}{{ . }}{{ else }}{{ .name }}{{ end }}
{{- end }}
{{- end }}
{{- end }}

{{/* "true" where the API server itself can tell a store gateway from other pods. */}}
{{- define "timeshard.matchConditions" -}}
{{- if semverCompare ">=1.28.0-0" .Capabilities.KubeVersion.Version }}true{{ end }}
{{- end }}

{{/* Without matchConditions, Fail would block every pod of the namespaces (Prometheus too) while no server answers. */}}
{{- define "timeshard.failurePolicy" -}}
{{- .Values.webhook.failurePolicy | default (ternary "Fail" "Ignore" (eq (include "timeshard.matchConditions" .) "true")) }}
{{- end }}

{{/*
Where the certificate comes from: cert-manager, self-signed or existing.
auto is cert-manager where its API is there, else self-signed; an installed release keeps what it has, because a change
would leave the API server without a trusted certificate until the new pods run.
*/}}
{{- define "timeshard.certificates" -}}
{{- $chosen := .Values.certificates }}
{{- $enabled := toString .Values.certManager.enabled }}
{{- if eq $enabled "true" }}
{{- if not (has $chosen (list "auto" "cert-manager")) }}
{{- fail (printf "certManager.enabled is true, and certificates is %s: leave certManager.enabled empty" $chosen) }}
{{- end }}cert-manager
{{- else if ne $chosen "auto" }}
{{- if and (eq $enabled "false") (eq $chosen "cert-manager") }}
{{- fail "certManager.enabled is false, and certificates is cert-manager: leave certManager.enabled empty" }}
{{- end }}{{ $chosen }}
{{- else if .Values.tls.existingSecret }}existing
{{- else if eq $enabled "false" }}self-signed
{{- else }}
{{- $containers := dig "spec" "template" "spec" "containers" list (lookup "apps/v1" "Deployment" (include "timeshard.namespace" .) (include "timeshard.fullname" .) | default dict) }}
{{- $args := list }}
{{- range $containers }}
{{- if eq .name "timeshard" }}{{ $args = .args | default list }}{{ end }}
{{- end }}
{{- if has "--self-signed" $args }}self-signed
{{- else if .Capabilities.APIVersions.Has "cert-manager.io/v1" }}cert-manager
{{- else }}self-signed
{{- end }}
{{- end }}
{{- end }}

{{/* "true" where the server makes its certificate itself. */}}
{{- define "timeshard.selfSigned" -}}
{{- if eq (include "timeshard.certificates" .) "self-signed" }}true{{ end }}
{{- end }}

{{/* "true" where cert-manager issues the certificate. */}}
{{- define "timeshard.certManager" -}}
{{- if eq (include "timeshard.certificates" .) "cert-manager" }}true{{ end }}
{{- end }}

{{/* The namespaces with a Role for the server, separated by commas; empty: cluster-wide rights. */}}
{{- define "timeshard.namespaces" -}}
{{- if eq .Values.rbac.scope "namespaces" }}
{{- if not .Values.rbac.namespaces }}
{{- fail "rbac.scope is namespaces, and rbac.namespaces is empty: name the namespaces that gateways are in, or set rbac.scope=cluster" }}
{{- end }}{{ join "," .Values.rbac.namespaces }}
{{- else if .Values.rbac.namespaces }}
{{- fail "rbac.namespaces is set, and rbac.scope is cluster, which gives rights in every namespace: set rbac.scope=namespaces, or leave rbac.namespaces empty" }}
{{- end }}
{{- end }}

{{/* Empty, or an error where the API server has no ValidatingAdmissionPolicy. */}}
{{- define "timeshard.policyVersion" -}}
{{- if semverCompare "<1.30.0-0" .Capabilities.KubeVersion.Version }}
{{- fail (printf "admissionPolicy.enabled needs Kubernetes 1.30 or newer, and this is %s: set admissionPolicy.enabled=false" .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- end }}

{{/* The Secret with the server's certificate, empty for --self-signed; contradictory values are refused here. */}}
{{- define "timeshard.tlsSecret" -}}
{{- $own := .Values.tls.existingSecret }}
{{- $from := include "timeshard.certificates" . }}
{{- if eq $from "cert-manager" }}
{{- if or $own .Values.webhook.caBundle }}
{{- fail "cert-manager makes the certificate and sets the caBundle: leave tls.existingSecret and webhook.caBundle empty, or set certificates=existing" }}
{{- end }}{{ include "timeshard.fullname" . }}-tls
{{- else if eq $from "existing" }}
{{- if not $own }}
{{- fail "certificates is existing: name the Secret with your tls.crt and tls.key in tls.existingSecret" }}
{{- end }}
{{- if not .Values.webhook.caBundle }}
{{- fail (printf "tls.existingSecret is set, so the certificate is yours: set webhook.caBundle to the CA that signed it (PEM, base64); the Secret must be in namespace %s, with tls.crt and tls.key for %s.%s.svc. Or leave tls.existingSecret empty, and the server makes a certificate itself" (include "timeshard.namespace" .) (include "timeshard.fullname" .) (include "timeshard.namespace" .)) }}
{{- end }}{{ $own }}
{{- else }}
{{- if $own }}
{{- fail "certificates is self-signed, so the server makes the certificate: leave tls.existingSecret empty, or set certificates=existing" }}
{{- end }}
{{- if .Values.webhook.caBundle }}
{{- fail "webhook.caBundle is set without tls.existingSecret: the server then makes its certificate itself, and sets the caBundle; leave webhook.caBundle empty, or set tls.existingSecret, too" }}
{{- end }}
{{- end }}
{{- end }}

{{/* The annotation by which cert-manager sets the caBundle. */}}
{{- define "timeshard.injectCA" -}}
{{- if include "timeshard.certManager" . -}}
cert-manager.io/inject-ca-from: {{ include "timeshard.namespace" . }}/{{ include "timeshard.tlsSecret" . }}
{{- end }}
{{- end }}

{{/* The configuration file. Values are merged key by key, so a key would appear next to a default with the same meaning. */}}
{{- define "timeshard.config" -}}
{{- $config := deepCopy .Values.config }}
{{- $sharding := $config.sharding }}
{{- range list (list "retention" "data_retention_days" 370) (list "overlap" "shard_overlap_days" 1) (list "future_buffer" "future_buffer_hours" 24) (list "replicas" "replicas_per_shard" 2) (list "boundaries" "total_shards" 3) }}
{{- $new := index . 0 }}{{ $old := index . 1 }}
{{- if and (hasKey $sharding $new) (hasKey $sharding $old) }}
{{- if eq (toString (get $sharding $old)) (toString (index . 2)) }}
{{- $_ := unset $sharding $old }}
{{- else if ne $new "boundaries" }}
{{- fail (printf "config.sharding has both %s and %s, which say the same thing: keep one of the two" $new $old) }}
{{- end }}
{{- end }}
{{- end }}
{{- $injection := $config.injection }}
{{- $image := include "timeshard.image" . }}
{{- if ne $image (printf "ghcr.io/thanos-timeshard/timeshard:%s" .Chart.AppVersion) }}
{{- $injection = merge $injection (dict "agent_image" $image) }}
{{- end }}
{{- with .Values.image.pullPolicy }}
{{- $injection = merge $injection (dict "image_pull_policy" .) }}
{{- end }}
{{- if and (semverCompare "<1.29.0-0" .Capabilities.KubeVersion.Version) (not (hasKey $injection "native_sidecar")) }}
{{- $_ := set $injection "native_sidecar" false }}
{{- end }}
{{- if not $injection }}{{ $_ := unset $config "injection" }}{{ end }}
{{- if not $config.queriers }}{{ $_ := unset $config "queriers" }}{{ end }}
{{- /* YAML 1.1 reads off as false. */}}
{{- $mode := ternary "off" .Values.guard.mode (eq (toString .Values.guard.mode) "false") }}
{{- if ne $mode "deny" }}
{{- $_ := set $config "guard" (dict "mode" $mode) }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{/* How an endpoint is scraped. */}}
{{- define "timeshard.scrape" -}}
{{- with .interval }}
interval: {{ . }}
{{- end }}
{{- with .scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
{{- with .relabelings }}
relabelings:
{{ toYaml . }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings:
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* A probe: (list of its defaults and its changes). */}}
{{- define "timeshard.probe" -}}
{{- toYaml (mergeOverwrite (deepCopy (index . 0)) (index . 1)) }}
{{- end }}
