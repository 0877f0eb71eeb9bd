{{/* The file that `cropduster serve` reads: the sections of the values, and those that only the chart can know. */}}

{{- define "cropduster.config" -}}
{{- $own := dict "state" (dict "directory" "/var/lib/cropduster/state") -}}
{{- /* Health says nothing that is worth hiding. Without certificates a file server answers its own pod alone. */ -}}
{{- $listen := dict "internal" "127.0.0.1:7300" "health" "0.0.0.0:7302" -}}
{{- if include "cropduster.tls.internal" . -}}
{{- $files := dict "certificate" "/run/tls/internal/tls.crt" "key" "/run/tls/internal/tls.key" "clients" "/run/tls/internal/ca.crt" -}}
{{- $allow := prepend .Values.tls.internal.allow (include "cropduster.headless" .) -}}
{{- $_ := set $listen "internal" (dict "address" "0.0.0.0:7300" "tls" $files "allow" $allow) -}}
{{- end -}}
{{- if include "cropduster.tls.external" . -}}
{{- $files := dict "certificate" "/run/tls/external/tls.crt" "key" "/run/tls/external/tls.key" -}}
{{- $_ := set $listen "external" (dict "address" "0.0.0.0:7301" "tls" $files "reflection" .Values.tls.external.reflection) -}}
{{- end -}}
{{- $_ := set $own "listen" $listen -}}
{{- if .Values.database.secret -}}
{{- $_ := set $own "database" (dict "url" (dict "env" "CROPDUSTER_DATABASE")) -}}
{{- if include "cropduster.tls.internal" . -}}
{{- $replicas := dict "address" (printf "dns:///%s:7300" (include "cropduster.headless" .)) -}}
{{- if .Values.kubernetes.discovery -}}
{{- $replicas = dict "address" (printf "kubernetes:///%s-headless:7300" (include "cropduster.name" .)) "name" (include "cropduster.headless" .) -}}
{{- end -}}
{{- $_ := set $own "replicas" $replicas -}}
{{- end -}}
{{- end -}}
{{- if .Values.metrics.enabled -}}
{{- $_ := set $own "metrics" (dict "listen" "0.0.0.0:7303") -}}
{{- end -}}
{{- toYaml (merge $own (deepCopy .Values.config)) -}}
{{- end }}
