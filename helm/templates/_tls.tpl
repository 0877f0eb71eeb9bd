{{/* Certificates: the names of the Secrets they are in, "" where there are none, and where they are mounted. */}}

{{- define "cropduster.tls.internal" -}}
{{- with .Values.tls.internal -}}
{{- .secret | default (ternary (printf "%s-internal-tls" (include "cropduster.name" $)) "" (not (empty .issuer.name))) -}}
{{- end -}}
{{- end }}

{{- define "cropduster.tls.external" -}}
{{- with .Values.tls.external -}}
{{- .secret | default (ternary (printf "%s-external-tls" (include "cropduster.name" $)) "" (not (empty .issuer.name))) -}}
{{- end -}}
{{- end }}

{{/* The name by which file servers call each other, and know each other's certificates. */}}
{{- define "cropduster.headless" -}}
{{- printf "%s-headless.%s.svc" (include "cropduster.name" .) .Release.Namespace -}}
{{- end }}

{{/* Arguments: a list of the root, and whether those of the external address are needed, too. */}}
{{- define "cropduster.tls.mounts" -}}
{{- if include "cropduster.tls.internal" (index . 0) }}
- {name: tls-internal, mountPath: /run/tls/internal, readOnly: true}
{{- end }}
{{- if and (index . 1) (include "cropduster.tls.external" (index . 0)) }}
- {name: tls-external, mountPath: /run/tls/external, readOnly: true}
{{- end }}
{{- end }}

{{- define "cropduster.tls.volumes" -}}
{{- with include "cropduster.tls.internal" (index . 0) }}
- name: tls-internal
  secret: {secretName: {{ . | quote }}, defaultMode: 0440}
{{- end }}
{{- $external := include "cropduster.tls.external" (index . 0) }}
{{- if and (index . 1) $external }}
- name: tls-external
  secret: {secretName: {{ $external | quote }}, defaultMode: 0440}
{{- end }}
{{- end }}

{{/* Environment by which commands in a pod reach the file servers. */}}
{{- define "cropduster.caller" -}}
{{- if include "cropduster.tls.internal" . }}
- name: CROPDUSTER_SERVER
  value: {{ printf "%s-internal.%s.svc:%d" (include "cropduster.name" .) .Release.Namespace (int .Values.services.internal.port) }}
- {name: CROPDUSTER_CA, value: /run/tls/internal/ca.crt}
- {name: CROPDUSTER_CERT, value: /run/tls/internal/tls.crt}
- {name: CROPDUSTER_KEY, value: /run/tls/internal/tls.key}
{{- else }}
- {name: CROPDUSTER_SERVER, value: "127.0.0.1:7300"}
{{- end }}
{{- end }}
