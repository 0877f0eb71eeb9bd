{{/* Names and labels. Names of a release leave room for the longest of our endings. */}}

{{- define "cropduster.name" -}}
{{- $whole := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- $whole | trunc 43 | trimSuffix "-" -}}
{{- end }}

{{- define "cropduster.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end }}

{{- define "cropduster.selector.envoy" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: envoy
{{- end }}

{{- define "cropduster.selector.postgres" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: postgres
{{- end }}

{{- define "cropduster.selector.agents" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: agent
{{- end }}

{{/* Where the agents call: with tokens from outside, with a certificate from inside. */}}
{{- define "cropduster.agents.server" -}}
{{- $side := ternary "external" "internal" (not (empty .Values.agents.token)) -}}
{{- $port := ternary .Values.services.external.port .Values.services.internal.port (eq $side "external") -}}
{{- .Values.agents.server | default (printf "%s-%s.%s.svc:%d" (include "cropduster.name" .) $side .Release.Namespace (int $port)) -}}
{{- end }}

{{/* The agents, as a peer of a NetworkPolicy. */}}
{{- define "cropduster.agents.peer" -}}
- namespaceSelector:
    matchLabels: {kubernetes.io/metadata.name: {{ .Values.agents.namespace | quote }}}
  podSelector:
    matchLabels: {{- include "cropduster.selector.agents" . | nindent 6 }}
{{- end }}

{{/* Labels of everything; argument: a list of the root and the component. */}}
{{- define "cropduster.labels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "cropduster.account" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "cropduster.name" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end }}

{{- define "cropduster.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end }}

{{/* What the pods may ask of Kubernetes, as rules of a Role; empty where nothing does. */}}
{{- define "cropduster.rules" -}}
{{- $rules := .Values.serviceAccount.rules -}}
{{- if .Values.kubernetes.discovery -}}
{{- $rules = append $rules (dict "apiGroups" (list "discovery.k8s.io") "resources" (list "endpointslices") "verbs" (list "list" "watch")) -}}
{{- end -}}
{{- $own := list -}}
{{- range include "cropduster.secrets" (list . .Values.config) | splitList "\n" -}}
  {{- $parts := splitList "/" . -}}
  {{- if eq (first $parts) $.Release.Namespace -}}
  {{- $own = append $own (last $parts) -}}
  {{- end -}}
{{- end -}}
{{- with $own | uniq | sortAlpha -}}
{{- $rules = append $rules (dict "apiGroups" (list "") "resources" (list "secrets") "resourceNames" . "verbs" (list "get")) -}}
{{- end -}}
{{- with $rules -}}{{- toYaml . -}}{{- end -}}
{{- end }}

{{/* Secrets that are named as {kubernetes: NAME/KEY}, a line NAMESPACE/NAME for each; arguments: a list of the root, and where. */}}
{{- define "cropduster.secrets" -}}
{{- $root := index . 0 -}}
{{- $here := index . 1 -}}
{{- if kindIs "slice" $here -}}
  {{- range $here -}}{{- include "cropduster.secrets" (list $root .) -}}{{- end -}}
{{- else if kindIs "map" $here -}}
  {{- $parts := splitList "/" (printf "%v" $here.kubernetes) -}}
  {{- if and (kindIs "string" $here.kubernetes) (eq (len $here) 1) (has (len $parts) (list 2 3)) -}}
  {{- printf "%s\n" (join "/" (ternary (list $root.Release.Namespace (first $parts)) (initial $parts) (eq (len $parts) 2))) -}}
  {{- else -}}
    {{- range $_, $value := $here -}}{{- include "cropduster.secrets" (list $root $value) -}}{{- end -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{/* Whether the file servers ask Kubernetes for anything, and need a token for that: "" or "yes". */}}
{{- define "cropduster.asks" -}}
{{- if or (include "cropduster.rules" .) (include "cropduster.secrets" (list . .Values.config)) -}}yes{{- end -}}
{{- end }}
