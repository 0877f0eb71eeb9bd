{{/* The file that `cropduster serve` reads: the sections of the values, and those that only the chart can know. */}}

{{- define "cropduster.config" -}}
{{- $own := dict "state" (dict "directory" "/var/lib/cropduster/state") -}}
{{- /* Without TLS and tokens a file server answers its own machine alone; health says nothing that is worth hiding. */ -}}
{{- $_ := set $own "listen" (dict "internal" "127.0.0.1:7300" "health" "0.0.0.0:7302") -}}
{{- if .Values.database.secret -}}
{{- $_ := set $own "database" (dict "url" (dict "env" "CROPDUSTER_DATABASE")) -}}
{{- end -}}
{{- if .Values.metrics.enabled -}}
{{- $_ := set $own "metrics" (dict "listen" "0.0.0.0:7303") -}}
{{- end -}}
{{- toYaml (merge $own (deepCopy .Values.config)) -}}
{{- end }}
