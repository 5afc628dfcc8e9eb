{{- define "kube-ipam.labels" -}}
app.kubernetes.io/name: kube-ipam
app.kubernetes.io/component: {{ . }}
{{- end }}

{{- define "kube-ipam.image" -}}
{{- $variant := ternary "-net" "" (eq .Values.image.variant "net") -}}
{{ .Values.image.repository }}{{ $variant }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "kube-ipam.securityContext" -}}
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "kube-ipam.podSecurityContext" -}}
runAsUser: 0
runAsGroup: 0
seccompProfile:
  type: RuntimeDefault
{{- with .Values.seLinuxOptions }}
seLinuxOptions:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "kube-ipam.placement" -}}
priorityClassName: {{ .Values.priorityClassName }}
tolerations:
  {{- toYaml .Values.tolerations | nindent 2 }}
nodeSelector:
  {{- toYaml .Values.nodeSelector | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The network configuration: that of the main plugin from files/, with the values laid over it. */}}
{{- define "kube-ipam.conflist" -}}
{{- $values := .Values.network -}}
{{- $list := $values.conflist -}}
{{- if not $list -}}
{{- $file := printf "files/%s-etcd.conflist" (ternary "10-kuberouter" $values.plugin (eq $values.plugin "kube-router")) -}}
{{- $list = .Files.Get $file | required (printf "network.plugin: %q is none of bridge, macvlan, ipvlan, ptp, kube-router, calico" $values.plugin) | fromJson -}}
{{- $main := first $list.plugins -}}
{{- $etcd := dict "etcdURL" (join "," .Values.etcd.endpoints) -}}
{{- if .Values.etcd.tls -}}
{{- $etcd = mergeOverwrite $main.ipam.etcdConfig $etcd -}}
{{- end -}}
{{- $own := dict "etcdConfig" $etcd "kubeConfig" (printf "%s/kube-ipam.d/kubeconfig" .Values.cni.confDir) -}}
{{- $_ := unset $main.ipam "etcdConfig" -}}
{{- $ipam := mergeOverwrite $main.ipam $own (deepCopy $values.ipam) -}}
{{- $main = set (mergeOverwrite $main (deepCopy $values.main)) "ipam" $ipam -}}
{{- $_ := set $list "plugins" (prepend (rest $list.plugins) $main) -}}
{{- $_ := set $list "name" $values.name -}}
{{- end -}}
{{ $list | toPrettyJson }}
{{- end }}
