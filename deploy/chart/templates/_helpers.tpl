{{/* On everything. Never app.kubernetes.io/managed-by: on a ConfigMap, thanos-timeshard there means that it holds published windows. */}}
{{- define "timeshard.labels" -}}
app.kubernetes.io/name: thanos-timeshard
{{- end }}

{{/* The server's pods; `timeshard status` looks for these. */}}
{{- define "timeshard.selector" -}}
app.kubernetes.io/name: thanos-timeshard
app.kubernetes.io/component: server
{{- end }}

{{- define "timeshard.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{- .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ $tag }}{{ end }}
{{- end }}

{{/* "true" where the API server itself can tell a store gateway from other pods. */}}
{{- define "timeshard.matchConditions" -}}
{{- if semverCompare ">=1.28.0-0" .Capabilities.KubeVersion.Version }}true{{ end }}
{{- end }}

{{/* Without matchConditions Fail would hold up every pod of the namespaces, Prometheus' too, while no server answers. */}}
{{- define "timeshard.failurePolicy" -}}
{{- .Values.webhook.failurePolicy | default (ternary "Fail" "Ignore" (eq (include "timeshard.matchConditions" .) "true")) }}
{{- end }}

{{/* "true" where the server makes its certificate itself: without cert-manager, and without one of yours. */}}
{{- define "timeshard.selfSigned" -}}
{{- if not (or .Values.certManager.enabled .Values.tls.existingSecret) }}true{{ end }}
{{- end }}

{{/* The namespaces that the server has a Role in, with commas between them; empty: it has its rights in the cluster. */}}
{{- define "timeshard.namespaces" -}}
{{- if eq .Values.rbac.scope "namespaces" }}
{{- if not .Values.rbac.namespaces }}
{{- fail "rbac.scope is namespaces, and rbac.namespaces is empty: name the namespaces that gateways are in, or set rbac.scope=cluster" }}
{{- end }}{{ join "," .Values.rbac.namespaces }}
{{- else if .Values.rbac.namespaces }}
{{- fail "rbac.namespaces is set, and rbac.scope is cluster, which gives rights in every namespace: set rbac.scope=namespaces, or leave rbac.namespaces empty" }}
{{- end }}
{{- end }}

{{/* Nothing, or a refusal where the API server has no ValidatingAdmissionPolicy. */}}
{{- define "timeshard.policyVersion" -}}
{{- if semverCompare "<1.30.0-0" .Capabilities.KubeVersion.Version }}
{{- fail (printf "admissionPolicy.enabled needs Kubernetes 1.30 or newer, and this is %s: set admissionPolicy.enabled=false" .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- end }}

{{/* The Secret that the server's certificate is mounted from; what does not go together ends here. */}}
{{- define "timeshard.tlsSecret" -}}
{{- $own := .Values.tls.existingSecret }}
{{- if .Values.certManager.enabled }}
{{- if or $own .Values.webhook.caBundle }}
{{- fail "certManager.enabled is true, so cert-manager makes the certificate and sets the caBundle: leave tls.existingSecret and webhook.caBundle empty, or set certManager.enabled=false" }}
{{- end }}timeshard-tls
{{- else if $own }}
{{- if not .Values.webhook.caBundle }}
{{- fail (printf "tls.existingSecret is set, so the certificate is yours: set webhook.caBundle to the CA that signed it (PEM, base64); the Secret must be in namespace %s, with tls.crt and tls.key for timeshard.%s.svc. Or leave tls.existingSecret empty, and the server makes a certificate itself" .Release.Namespace .Release.Namespace) }}
{{- end }}{{ $own }}
{{- else if .Values.webhook.caBundle }}
{{- fail "webhook.caBundle is set without tls.existingSecret: the server then makes its certificate itself, and sets the caBundle; leave webhook.caBundle empty, or set tls.existingSecret, too" }}
{{- end }}
{{- end }}

{{/* The configuration file. Values are merged key by key, so a key would stand beside the default that says the same thing. */}}
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
{{- /* YAML 1.1 reads off as false. */}}
{{- $mode := ternary "off" .Values.guard.mode (eq (toString .Values.guard.mode) "false") }}
{{- if ne $mode "deny" }}
{{- $_ := set $config "guard" (dict "mode" $mode) }}
{{- end }}
{{- toYaml $config }}
{{- end }}
