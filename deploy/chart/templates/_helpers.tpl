{{- define "wspulse.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "wspulse.fullname" -}}
{{- $name := include "wspulse.name" . -}}
{{- $both := printf "%s-%s" .Release.Name $name -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name $both -}}
{{- .Values.fullnameOverride | default $full | trunc 55 | trimSuffix "-" -}}
{{- end }}

{{- define "wspulse.service" -}}
{{- .Values.service.name | default (include "wspulse.fullname" .) -}}
{{- end }}

{{- define "wspulse.adminService" -}}
{{- printf "%s-admin" (include "wspulse.fullname" .) -}}
{{- end }}

{{- define "wspulse.serviceAccount" -}}
{{- $own := .Values.serviceAccount.create | ternary (include "wspulse.fullname" .) "default" -}}
{{- .Values.serviceAccount.name | default $own -}}
{{- end }}

{{- define "wspulse.selector" -}}
app.kubernetes.io/name: {{ include "wspulse.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* For the pods of `helm test`, which no service must select. */}}
{{- define "wspulse.testSelector" -}}
app.kubernetes.io/name: {{ include "wspulse.name" . }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "wspulse.labels" -}}
{{ include "wspulse.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "wspulse.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{- /* internalPort and externalPort, from gowebsockettest's chart, take precedence. */}}
{{- define "wspulse.containerPort" -}}
{{- .Values.service.internalPort | default .Values.containerPort | int -}}
{{- end }}

{{- define "wspulse.servicePort" -}}
{{- .Values.service.externalPort | default .Values.service.port | int -}}
{{- end }}

{{- /* From the start of the announcement to the hard stop. If the hook fails, the server waits for
its default of 5 s, which must fit as well. */}}
{{- define "wspulse.drainTimeout" -}}
{{- $wait := dict "hook" (max 5 .Values.drain.wait) "sleep" 0 "server" .Values.drain.wait -}}
{{- add (get $wait .Values.drain.announce) .Values.drain.window 5 -}}
{{- end }}

{{- define "wspulse.gracePeriod" -}}
{{- $sleep := eq .Values.drain.announce "sleep" | ternary .Values.drain.wait 0 -}}
{{- $needed := add (include "wspulse.drainTimeout" . | int) $sleep 5 -}}
{{- $given := .Values.terminationGracePeriodSeconds -}}
{{- if and (not (kindIs "invalid" $given)) (lt ($given | int64) $needed) -}}
{{- fail (printf (print "terminationGracePeriodSeconds is %d, but wait %d + window %d "
      "+ close handshake 5 + 5 spare make %d: raise it, or shorten drain.wait or drain.window")
      ($given | int) (.Values.drain.wait | int) (.Values.drain.window | int) ($needed | int)) -}}
{{- end -}}
{{- $given | default $needed | int -}}
{{- end }}

{{- define "wspulse.args" -}}
{{- if .Values.faults.enabled }}
- --faults
{{- end }}
- --profile=kubernetes
{{- if eq .Values.drain.announce "server" }}
- --drain-delay={{ .Values.drain.wait }}s
{{- else if eq .Values.drain.announce "sleep" }}
- --drain-delay=0s
{{- end }}
- --drain-window={{ .Values.drain.window }}s
- --drain-timeout={{ include "wspulse.drainTimeout" . }}s
- --drain-code={{ .Values.drain.code }}
- {{ printf "--drain-reason=%s" .Values.drain.reason | quote }}
- --drain-ready={{ .Values.drain.ready }}
{{- if .Values.deployments.enabled }}
- --kube=in-cluster
- --kube-resources={{ join "," .Values.deployments.resources }}
{{- with .Values.deployments.namespace }}
- --kube-namespace={{ . }}
{{- end }}
{{- if .Values.deployments.tokenSecret }}
- "--mount=/api/wds/logs=deployments?deflate=off&token-file=/etc/wspulse/deployments/token"
{{- end }}
{{- else if not (hasKey .Values.config "kube") }}
- --kube=off
{{- end }}
{{- if .Values.gateway.enabled }}
- {{ printf "--gateway-backend=%s" (include "wspulse.gatewayBackend" .) | quote }}
- --gateway-stage={{ .Values.gateway.stage }}
{{- with .Values.gateway.hold }}
- --gateway-hold={{ . }}s
{{- end }}
- --gateway-token-file=/etc/wspulse/gateway/token
- --gateway-peer-key-file=/etc/wspulse/peers/keys
- --gateway-peer-listen={{ .Values.admin.address }}:{{ .Values.gateway.peerPort }}
{{- end }}
{{- range $flag, $value := .Values.config }}
{{- range kindIs "slice" $value | ternary $value (list $value) }}
{{- if kindIs "bool" . }}
{{- if . }}
- --{{ $flag }}
{{- end }}
{{- else }}
{{- $text := kindIs "float64" . | ternary (int64 . | toString) (toString .) }}
- {{ printf "--%s=%s" $flag $text | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Secrets that are mounted as files. The server reads them again, so changes need no restart. */}}
{{- define "wspulse.secrets" -}}
{{- $secrets := dict -}}
{{- if .Values.deployments.enabled -}}
{{- with .Values.deployments.tokenSecret -}}
{{- $_ := set $secrets "deployments" . -}}
{{- end -}}
{{- end -}}
{{- if .Values.gateway.enabled -}}
{{- $_ := set $secrets "gateway" (include "wspulse.gatewaySecret" .) -}}
{{- $_ := set $secrets "peers" (include "wspulse.peerSecret" .) -}}
{{- end -}}
{{- toYaml $secrets -}}
{{- end }}

{{- define "wspulse.volumes" -}}
{{- $volumes := list -}}
{{- range $name, $secret := include "wspulse.secrets" . | fromYaml -}}
{{- $volumes = append $volumes (dict "name" $name "secret" (dict "secretName" $secret)) -}}
{{- end -}}
{{- concat $volumes .Values.extraVolumes | toYaml -}}
{{- end }}

{{- define "wspulse.volumeMounts" -}}
{{- $mounts := list -}}
{{- range $name, $secret := include "wspulse.secrets" . | fromYaml -}}
{{- $path := printf "/etc/wspulse/%s" $name -}}
{{- $mounts = append $mounts (dict "name" $name "mountPath" $path "readOnly" true) -}}
{{- end -}}
{{- concat $mounts .Values.extraVolumeMounts | toYaml -}}
{{- end }}

{{- /* Gateways are spread over nodes: each that fails takes its connections with it. */}}
{{- define "wspulse.spread" -}}
{{- $own := dict "maxSkew" 1 "topologyKey" "kubernetes.io/hostname"
      "whenUnsatisfiable" "ScheduleAnyway"
      "labelSelector" (dict "matchLabels" (include "wspulse.selector" . | fromYaml)) -}}
{{- $default := .Values.gateway.enabled | ternary (list $own) list -}}
{{- .Values.topologySpreadConstraints | default $default | toYaml -}}
{{- end }}

{{- define "wspulse.ingressClass" -}}
{{- $old := get .Values.ingress.annotations "kubernetes.io/ingress.class" -}}
{{- .Values.ingress.className | default $old -}}
{{- end }}

{{- define "wspulse.ingressController" -}}
{{- $class := include "wspulse.ingressClass" . -}}
{{- .Values.ingress.controller | default (has $class (list "nginx" "alb") | ternary $class "") -}}
{{- end }}

{{- /* Whether clients of the ingress use TLS. An ALB has it by its listeners alone. */}}
{{- define "wspulse.ingressTLS" -}}
{{- $ports := get .Values.ingress.annotations "alb.ingress.kubernetes.io/listen-ports" -}}
{{- with .Values.ingress -}}
{{- if or .tls .clusterIssuer .issuer (contains "HTTPS" $ports) -}}true{{- end -}}
{{- end -}}
{{- end }}

{{- /* What `helm test` probes besides the Service: an echo at each host of the ingress, as JSON. Hosts
with their own paths are probed at /echo if it is among them, else at the first. */}}
{{- define "wspulse.testURLs" -}}
{{- $urls := .Values.test.urls -}}
{{- if and .Values.ingress.enabled .Values.test.ingress (not $urls) -}}
{{- $scheme := include "wspulse.ingressTLS" . | eq "true" | ternary "wss" "ws" -}}
{{- range .Values.ingress.hosts -}}
{{- $host := kindIs "map" . | ternary . (dict "host" .) -}}
{{- $path := first ($host.paths | default (list "/")) | trimSuffix "/" -}}
{{- $echo := printf "%s/echo" $.Values.basePath -}}
{{- if or (has $path (list "" $.Values.basePath)) (has $echo $host.paths) -}}
{{- $path = $echo -}}
{{- end -}}
{{- if not (hasPrefix "*" ($host.host | default "*")) -}}
{{- $urls = append $urls (printf "%s://%s%s" $scheme $host.host $path) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $urls -}}
{{- end }}

{{- /* A probe of the values, with the base path. Takes (list values probe). */}}
{{- define "wspulse.probe" -}}
{{- $probe := index . 1 | mustDeepCopy -}}
{{- with $probe.httpGet -}}
{{- $_ := set . "path" (printf "%s%s" (index $ 0).basePath .path) -}}
{{- end -}}
{{- toYaml $probe -}}
{{- end }}

{{- define "wspulse.scaleDown" -}}
scaleDown:
  stabilizationWindowSeconds: {{ .Values.scaleDown.stabilizationWindowSeconds }}
  policies:
    - {type: Pods, value: {{ .Values.scaleDown.podsPerMinute }}, periodSeconds: 60}
{{- end }}

{{- /* Checks that a schema cannot express: inconsistent values. Included by the Deployment. */}}
{{- define "wspulse.guard" -}}
{{- $owners := dict "listen" "containerPort" "admin-listen" "admin.address and admin.port"
      "base-path" "basePath" "faults" "faults.enabled" "profile" "drain"
      "drain-delay" "drain.wait" "drain-window" "drain.window"
      "drain-timeout" "drain.wait and drain.window" "drain-code" "drain.code"
      "drain-reason" "drain.reason" "drain-ready" "drain.ready" -}}
{{- range $flag, $owner := $owners -}}
{{- if hasKey $.Values.config $flag -}}
{{- fail (printf "config.%s: the chart sets --%s from %s, since other objects depend on it: set that"
      $flag $flag $owner) -}}
{{- end -}}
{{- end -}}
{{- range .Values.env -}}
{{- if hasPrefix "WSPULSE_" (.name | default "") -}}
{{- fail (printf "env: %s: set wspulse's options in config, since flags override variables" .name) -}}
{{- end -}}
{{- end -}}
{{- $public := or .Values.ingress.enabled .Values.httpRoute.enabled
      (eq .Values.service.type "LoadBalancer") -}}
{{- if and .Values.faults.enabled $public (not .Values.faults.force) -}}
{{- fail (print "faults.enabled lets any client that reaches the port stop the pod, and an ingress, "
      "a route or a load balancer is enabled: disable one of them, or set faults.force=true "
      "if this is intended") -}}
{{- end -}}
{{- with .Values.deployments -}}
{{- if .enabled -}}
{{- if and $public (not .tokenSecret) (not .open) -}}
{{- fail (print "deployments.enabled shows every image and replica count to any client that reaches "
      "the pod, and an ingress, a route or a load balancer is enabled: set "
      "deployments.tokenSecret, or deployments.open=true if this is intended") -}}
{{- end -}}
{{- if or (hasKey $.Values.config "kube") (hasKey $.Values.config "kube-namespace")
      (hasKey $.Values.config "kube-resources") -}}
{{- fail (print "config.kube…: with deployments.enabled the chart sets --kube, --kube-namespace "
      "and --kube-resources, since the role depends on them: set deployments.namespace and "
      "deployments.resources") -}}
{{- end -}}
{{- if not (or $.Values.serviceAccount.create $.Values.serviceAccount.name) -}}
{{- fail (print "deployments.enabled would give its role to the service account `default`, which all "
      "pods of the namespace use by default: set serviceAccount.create=true, or serviceAccount.name") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.gateway -}}
{{- if .enabled -}}
{{- if gt ($.Values.replicaCount | int) 1 -}}
{{- fail (print "replicaCount: with gateway.enabled the pods are gateways: set gateway.replicaCount, "
      "or a scaler") -}}
{{- end -}}
{{- if not (or .backend $.Values.backend.enabled) -}}
{{- fail "gateway.enabled needs a backend: set gateway.backend=URL, or backend.enabled=true" -}}
{{- end -}}
{{- if not $.Values.admin.service.enabled -}}
{{- fail (print "gateway.enabled: callbacks use the admin service: "
      "set admin.service.enabled=true") -}}
{{- end -}}
{{- range $flag := list "backend" "stage" "token-file" "peer-key-file" "peer-listen" -}}
{{- if hasKey $.Values.config (printf "gateway-%s" $flag) -}}
{{- fail (printf "config.gateway-%s: the chart sets it from gateway.…, since other objects depend on it"
      $flag) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.backend -}}
{{- if and .enabled (not .gateway) (not $.Values.gateway.enabled) -}}
{{- fail (print "backend.enabled needs a gateway for its answers: set gateway.enabled=true, "
      "or backend.gateway=URL") -}}
{{- end -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled .Values.keda.enabled -}}
{{- fail (print "autoscaling.enabled and keda.enabled would both control the replicas "
      "(KEDA creates its own HPA): enable only one") -}}
{{- end -}}
{{- if not .Values.admin.service.enabled -}}
{{- if and .Values.keda.enabled (eq .Values.keda.trigger "metrics-api") -}}
{{- fail (print "keda.trigger=metrics-api finds the pods through the admin service: "
      "set admin.service.enabled=true, or keda.trigger=prometheus") -}}
{{- end -}}
{{- if .Values.serviceMonitor.enabled -}}
{{- fail (print "serviceMonitor.enabled finds the pods through the admin service: "
      "set admin.service.enabled=true") -}}
{{- end -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.enabled needs a gateway: set httpRoute.parentRefs=[{name: …}]" -}}
{{- end -}}
{{- with .Values.ingress -}}
{{- if and .enabled (not .hosts) (or .clusterIssuer .issuer) -}}
{{- fail "an issuer needs host names for the certificate: set ingress.hosts=[…]" -}}
{{- end -}}
{{- end -}}
{{- if eq (include "wspulse.containerPort" .) (.Values.admin.port | int | toString) -}}
{{- fail (printf "containerPort and admin.port are both %v: they must differ"
      .Values.admin.port) -}}
{{- end -}}
{{- end }}
