{{- /* The gateway and its backend: names, arguments, egress rules. */}}
{{- define "wspulse.backend" -}}
{{- printf "%s-backend" (include "wspulse.fullname" .) -}}
{{- end }}

{{- define "wspulse.backendSelector" -}}
app.kubernetes.io/name: {{ include "wspulse.name" . | trunc 55 }}-backend
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "wspulse.backendLabels" -}}
{{ include "wspulse.backendSelector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "wspulse.backendAccount" -}}
{{- with .Values.backend.serviceAccount -}}
{{- .name | default (.create | ternary (include "wspulse.backend" $) "default") -}}
{{- end -}}
{{- end }}

{{- define "wspulse.gatewaySecret" -}}
{{- .Values.gateway.tokenSecret | default (printf "%s-gateway" (include "wspulse.fullname" .)) -}}
{{- end }}

{{- define "wspulse.peerSecret" -}}
{{- .Values.gateway.peerSecret | default (printf "%s-peers" (include "wspulse.fullname" .)) -}}
{{- end }}

{{- define "wspulse.gatewayBackend" -}}
{{- $own := printf "http://%s.%s.svc:%v" (include "wspulse.backend" .) .Release.Namespace
      .Values.backend.port -}}
{{- .Values.gateway.backend | default $own -}}
{{- end }}

{{- /* Callbacks go to the admin service, with the base path. */}}
{{- define "wspulse.callbacks" -}}
{{- $own := printf "http://%s.%s.svc:%v%s" (include "wspulse.adminService" .) .Release.Namespace
      .Values.admin.port .Values.basePath -}}
{{- .Values.backend.gateway | default $own -}}
{{- end }}

{{- define "wspulse.backendArgs" -}}
{{- with .Values.backend }}
- backend
- --listen={{ $.Values.admin.address }}:{{ .port }}
- {{ printf "--gateway=%s" (include "wspulse.callbacks" $) | quote }}
{{- if not .gateway }}
- --gateway-token-file=/etc/wspulse/gateway/token
{{- end }}
- {{ printf "--sessions=%s" .sessions | quote }}
{{- with .dynamodbEndpoint }}
- {{ printf "--dynamodb-endpoint=%s" . | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The port of a URL, for a network policy. */}}
{{- define "wspulse.portOf" -}}
{{- $url := urlParse . -}}
{{- $usual := eq $url.scheme "https" | ternary "443" "80" -}}
{{- regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default $usual -}}
{{- end }}

{{- define "wspulse.dns" -}}
ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
{{- end }}

{{- /* Egress of the server: none, unless an enabled feature needs it. */}}
{{- define "wspulse.egress" -}}
{{- $rules := .Values.networkPolicy.egress -}}
{{- if .Values.deployments.enabled -}}
{{- /* The API server, which has no labels to select it by. */}}
{{- $ports := list -}}
{{- range .Values.deployments.ports -}}
{{- $ports = append $ports (dict "port" . "protocol" "TCP") -}}
{{- end -}}
{{- $rules = append $rules (dict "ports" $ports) -}}
{{- end -}}
{{- if .Values.gateway.enabled -}}
{{- $rule := dict "ports" (list (dict "port" (include "wspulse.portOf"
      (include "wspulse.gatewayBackend" .) | int) "protocol" "TCP")) -}}
{{- if not .Values.gateway.backend -}}
{{- $to := dict "matchLabels" (include "wspulse.backendSelector" . | fromYaml) -}}
{{- $_ := set $rule "to" (list (dict "podSelector" $to)) -}}
{{- end -}}
{{- $own := dict "matchLabels" (include "wspulse.selector" . | fromYaml) -}}
{{- $peers := dict "to" (list (dict "podSelector" $own))
      "ports" (list (dict "port" (.Values.gateway.peerPort | int) "protocol" "TCP")) -}}
{{- $rules = concat $rules (list (include "wspulse.dns" . | fromYaml) $rule $peers) -}}
{{- end -}}
{{- toYaml $rules -}}
{{- end }}

{{- /* Egress of the backend: its gateway, its table, and AWS credentials. */}}
{{- define "wspulse.backendEgress" -}}
{{- $callbacks := dict "ports" (list (dict "port" (include "wspulse.portOf"
      (include "wspulse.callbacks" .) | int) "protocol" "TCP")) -}}
{{- if not .Values.backend.gateway -}}
{{- $to := dict "matchLabels" (include "wspulse.selector" . | fromYaml) -}}
{{- $_ := set $callbacks "to" (list (dict "podSelector" $to)) -}}
{{- end -}}
{{- $rules := list (include "wspulse.dns" . | fromYaml) $callbacks -}}
{{- if hasPrefix "dynamodb:" .Values.backend.sessions -}}
{{- $table := .Values.backend.dynamodbEndpoint | default "https://aws" -}}
{{- $port := dict "port" (include "wspulse.portOf" $table | int) "protocol" "TCP" -}}
{{- $sts := dict "port" 443 "protocol" "TCP" -}}
{{- /* EKS Pod Identity listens on every node, at these addresses. */}}
{{- $near := list (dict "ipBlock" (dict "cidr" "169.254.170.23/32"))
      (dict "ipBlock" (dict "cidr" "fd00:ec2::23/128")) -}}
{{- $rules = concat $rules (list (dict "ports" (list $port $sts | uniq))
      (dict "to" $near "ports" (list (dict "port" 80 "protocol" "TCP")))) -}}
{{- end -}}
{{- toYaml $rules -}}
{{- end }}
